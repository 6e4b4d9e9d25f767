"""What goes out beside spans: the hardware's own words, and the sender's health with them."""

from __future__ import annotations

import logging
import re
from typing import Final

from kat_otel import semconv
from kat_otel.instrumentation.hardware.loop import HardwareLoop
from kat_otel.instrumentation.hardware.metrics import Measure
from kat_otel.instrumentation.identity.worker import Worker
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.export import Exporter
from kat_otel.instrumentation.sending.outbox import Parcel
from kat_otel.instrumentation.settings import Settings
from kat_otel.wire import resource_pairs

__all__ = ["Told"]

logger: Final = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[^a-z0-9_.]+")


class Told:
    """Starts reading when the worker has said who it is; anew if it says something else.

    Args:
        settings: how often; 0 is never.
        exporter: takes the requests.
        pid: the worker's process.
        counts: the sender's, sent with each request.
    """

    def __init__(self, settings: Settings, exporter: Exporter, pid: int, counts: Counts) -> None:
        self._settings = settings
        self._exporter = exporter
        self._pid = pid
        self._counts = counts
        self._worker: Worker | None = None
        self._loop: HardwareLoop | None = None

    def tick(self, worker: Worker) -> None:
        """Takes who the worker is; cheap when nothing has changed."""
        if worker is self._worker or not self._settings.hardware_seconds:
            return
        self._worker = worker
        self.close()
        self._loop = HardwareLoop(
            dict(resource_pairs(worker.resource)),
            self._pid,
            self._offer,
            interval=self._settings.hardware_seconds,
            also=self._health,
        )
        self._loop.start()

    def close(self) -> None:
        """Stops within a second."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.stop()

    def _offer(self, data: bytes) -> None:
        self._exporter.offer(Parcel("metrics", "metrics", [[data]], 1))

    def _health(self) -> list[Measure]:
        """Returns the sender's sums and levels; a sum's reason is an attribute."""
        sums, levels = self._counts.read()
        said = [
            Measure(f"{semconv.METRIC_CAPTURE}.{_NAME.sub('_', name)}", count, _reason(why), "sum")
            for name, why, count in ((*_parted(key), count) for key, count in sorted(sums.items()))
        ]
        said += [
            Measure(f"{semconv.METRIC_CAPTURE}.{_NAME.sub('_', name)}", value)
            for name, value in sorted(levels.items())
        ]
        return said


def _parted(key: str) -> tuple[str, str]:
    name, _, reason = key.partition(":")
    return name, reason


def _reason(why: str) -> dict[str, str | int]:
    return {semconv.REASON: why} if why else {}
