"""Once a second: what GPU, process and host say, as one OTLP request.

Two threads, both daemons. One asks the GPU and nothing else, for a call to a sick driver may
never come back; the other reads the host, waits a little for the GPU, and hands the bytes over.
While the GPU's thread hangs, the rest goes on without it and :attr:`HardwareLoop.counts` tells.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from kat_otel import semconv
from kat_otel.instrumentation.hardware.host import HostReader, HostTeller, ProcessReader
from kat_otel.instrumentation.hardware.metrics import Measure, pack_metrics
from kat_otel.instrumentation.hardware.nvml import GpuReader
from kat_otel.spans import AttributeValue

__all__ = ["HardwareLoop"]

logger: Final = logging.getLogger(__name__)

_STOPS_WITHIN: Final = 0.9
_PATIENCE: Final = 0.25
"""Seconds that a request waits for the GPU; what comes later leaves with the next."""

_OF_WORKER: Final = (
    semconv.RANK,
    semconv.WORLD_SIZE,
    semconv.DEVICE,
    semconv.TP_RANK,
    semconv.PP_RANK,
    semconv.DP_RANK,
    semconv.EP_RANK,
    semconv.HARDWARE_ID,
    "hw.pci.bus_id",
    "process.pid",
    "thread.id",
)
"""Resource attributes that say which worker: what concerns the whole host bears none of them."""


class HardwareLoop:
    """Reads hardware at an interval and hands requests over; never two at a time.

    Args:
        resource: attributes of the worker's OTLP resource, as its traces have them.
        pid: the worker's process, which need not be this one.
        export_metrics: takes the bytes of an ExportMetricsServiceRequest; called by one thread;
            may block (then fewer readings are made) and may raise (then it is counted).
        interval: seconds between two readings, above 0.
        also: what else the worker has to say each time: the sender's own health.
        root: where ``proc`` and ``sys`` are.

    Attributes:
        counts: requests, stalls of the GPU's thread, failures of the export.
    """

    def __init__(
        self,
        resource: Mapping[str, AttributeValue],
        pid: int,
        export_metrics: Callable[[bytes], None],
        *,
        interval: float = 1.0,
        also: Callable[[], Sequence[Measure]] | None = None,
        root: str | Path = "/",
    ) -> None:
        self._resource = dict(resource)
        self._host = {key: resource[key] for key in resource if key not in _OF_WORKER}
        self._export = export_metrics
        self._interval = interval
        self._also = also
        self._process = ProcessReader(pid, root)
        self._machine = HostReader(root)
        self._teller = HostTeller(str(resource.get(semconv.INSTANCE_ID, "")))
        self._gpu = _GpuThread(
            str(resource.get(semconv.HARDWARE_ID, "")), str(resource.get("hw.pci.bus_id", ""))
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kat-hardware", daemon=True)
        self._start_ns = 0
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        """Starts the threads."""
        self._start_ns = time.time_ns()
        self._gpu.start()
        self._thread.start()

    def stop(self) -> None:
        """Stops within a second; a thread that hangs in the driver is left behind."""
        self._stop.set()
        self._gpu.stop()
        until = time.monotonic() + _STOPS_WITHIN
        for thread in (self._thread, self._gpu.thread):
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def measures(self) -> list[Measure]:
        """Returns what the loop says of itself; it is part of every request."""
        said = {**self.counts, **self._gpu.counts, **self._process.counts}
        return [
            Measure("kat.worker.hardware.events", count, {"kat.event": name}, "sum", "{event}")
            for name, count in sorted(said.items())
        ]

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._stop.is_set():
                self._tick()
                due = max(due + self._interval, time.monotonic())  # what was missed is not made up
                self._stop.wait(due - time.monotonic())
        finally:
            self._teller.close()

    def _tick(self) -> None:
        gpu = self._gpu.ask(min(_PATIENCE, self._interval / 2), self._stop)
        if gpu is None:
            self.counts["gpu stalled"] += 1
        try:
            host = self._machine.read() if self._teller.chosen() else []
            own = [*(gpu or ()), *self._process.read(), *self.measures()]
            own += self._also() if self._also else ()
            groups = [(self._resource, own), (self._host, host)]
            data = pack_metrics(groups, start_ns=self._start_ns, now_ns=time.time_ns())
        except Exception as error:  # noqa: BLE001 - whatever it is, the sender goes on
            self._once("hardware could not be read", "read failures", error)
            return
        if not data or self._stop.is_set():
            return
        try:
            self._export(data)
        except Exception as error:  # noqa: BLE001 - the sender's own, and it goes on
            self._once("hardware metrics could not be handed over", "export failures", error)
        else:
            self.counts["requests"] += 1

    def _once(self, problem: str, count: str, error: Exception) -> None:
        """Tells the first of a kind with its stack; all are counted."""
        self.counts[count] += 1
        if self.counts[count] == 1:
            logger.error("%s; this and what follows is counted", problem, exc_info=error)


class _GpuThread:
    """Asks the GPU on demand, and keeps what it said until it is fetched."""

    def __init__(self, hw_id: str, pci_bus_id: str) -> None:
        self._reader = GpuReader(hw_id, pci_bus_id)
        self._wanted = threading.Event()
        self._changed = threading.Condition()
        self._ready: list[Measure] = []
        self._asking = False
        self._stopped = False
        self.thread = threading.Thread(target=self._run, name="kat-nvml", daemon=True)

    @property
    def counts(self) -> Mapping[str, int]:
        """What the reader counted."""
        return {f"gpu {name}": count for name, count in dict(self._reader.counts).items()}

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self._stopped = True
        self._wanted.set()
        with self._changed:
            self._changed.notify_all()

    def ask(self, patience: float, stop: threading.Event) -> list[Measure] | None:
        """Returns what the GPU said since the last time; None if it has not answered yet."""
        with self._changed:
            if not self._asking:
                self._asking = True
                self._wanted.set()
            done = self._changed.wait_for(lambda: not self._asking or stop.is_set(), patience)
            said, self._ready = self._ready, []
            return said if done or said else None

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._stopped:
                break
            said: list[Measure] = []
            try:
                said = self._reader.read()
            except Exception:
                self._reader.counts["failures"] += 1
                if self._reader.counts["failures"] == 1:
                    logger.exception("the GPU could not be read; this and what follows is counted")
            with self._changed:
                self._ready += said
                self._asking = False
                self._changed.notify_all()
        self._reader.close()
