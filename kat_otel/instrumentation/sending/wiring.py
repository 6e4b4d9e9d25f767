"""The parts of sending put together: for the helper process, or for a thread of the worker."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final

from kat_otel.instrumentation.capture.records import Source
from kat_otel.instrumentation.identity.worker import Worker
from kat_otel.instrumentation.sending.control import Control
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.export import Exporter, deliveries
from kat_otel.instrumentation.sending.sender import Sender
from kat_otel.instrumentation.sending.told import Told
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.tree import StepMaker

__all__ = ["Sending", "SendingThread"]

logger: Final = logging.getLogger(__name__)

DRAIN_S: Final = 2.0


class Sending:
    """From a source of batches to the collector that the environment names.

    Args:
        settings: of the worker.
        source: where batches come from; closed at the end.
        pid: the worker's process.
        environment: the ``OTEL_EXPORTER_OTLP_*`` variables are read from it.
        shares_gil: whether this runs in the worker's own process: its time is the server's.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        *,
        pid: int,
        environment: Mapping[str, str],
        shares_gil: bool = False,
    ) -> None:
        counts = Counts()
        exporter = Exporter(deliveries(environment), counts)
        control = Control(settings, counts) if settings.control_endpoint else None
        self._maker = StepMaker(settings)
        self._told = Told(settings, exporter, pid, counts)
        self.sender = Sender(
            settings,
            source,
            self._maker,
            exporter,
            control,
            counts=counts,
            shares_gil=shares_gil,
            on_tick=self._tick,
        )
        self._counts = counts
        self._counted: dict[str, int] = {}

    def introduce(self, worker: Worker) -> None:
        """Says who the worker is, where it cannot say it itself (C++ servers)."""
        self._maker.worker = worker

    def _tick(self, worker: Worker, _: Counts) -> None:
        self._count()
        self._told.tick(worker)

    def _count(self) -> None:
        """Adds what the step maker has counted since the last time to what is told."""
        for name, count in asdict(self._maker.counts).items():
            self._counts.add("records", count - self._counted.get(name, 0), name)
            self._counted[name] = count

    def run(self) -> None:
        """Sends until the worker is gone or :meth:`Sender.end` is called, and drains."""
        try:
            self.sender.run(DRAIN_S)
        finally:
            self._told.close()


class SendingThread:
    """A daemon thread of the worker that sends; for programs that must not start processes."""

    def __init__(self, settings: Settings, source: Source) -> None:
        self._sending = Sending(
            settings, source, pid=os.getpid(), environment=os.environ, shares_gil=True
        )
        self._thread = threading.Thread(target=self._run, name="kat-sender", daemon=True)
        self._thread.start()

    def close(self, timeout: float = DRAIN_S + 1.0) -> None:
        """Lets it drain; what is left after ``timeout`` seconds is not sent."""
        self._sending.sender.end()
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._sending.run()
        except Exception:
            logger.exception("the sender has ended; nothing is sent from this process any more")
