"""From batches to what leaves: the loop of the helper process, or of a thread of the server.

One thread runs all of it, so nothing here is locked; the exporter and the control channel have
threads of their own. A step that cannot be handled is counted and left out: the loop goes on.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import numpy as np

from kat_otel.capture import Mode, Poll, capture_nonce
from kat_otel.digest.make import NAMES_EVERY
from kat_otel.instrumentation.capture.records import Batch, Loss, Source
from kat_otel.instrumentation.identity.worker import Worker
from kat_otel.instrumentation.sending.budget import LEVELS, Budget
from kat_otel.instrumentation.sending.control import Control
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.digests import Digests
from kat_otel.instrumentation.sending.early import EarlySteps
from kat_otel.instrumentation.sending.export import Exporter
from kat_otel.instrumentation.sending.ids import described, digest_span, identified, with_digest
from kat_otel.instrumentation.sending.native_pack import fastest_packer
from kat_otel.instrumentation.sending.outbox import Parcel
from kat_otel.instrumentation.sending.pack import Buffer, request
from kat_otel.instrumentation.sending.recorder import Recorder
from kat_otel.instrumentation.sending.sampling import Sampling
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.step import Step
from kat_otel.spans import SpanTable

__all__ = ["OPERATOR", "Sender", "StepMaker"]

Made = TypeVar("Made")

logger: Final = logging.getLogger(__name__)

OPERATOR: Final = "operator"
"""Id of what an operator asks for by signal: the same on all ranks, so their steps meet."""

_TAKE_S: Final = 0.1
_LAST_S: Final = 0.5  # for what a source holds when the end is asked for
_DIGEST_STEPS: Final = 64
_DIGEST_WAIT_S: Final = 0.25
_MAX_AGAIN: Final = 4_096
_OF_TRACING: Final = np.array([1 << 16, 2 << 16, 3 << 16, 7 << 16], np.uint32)
"""CUpti_ActivityOverheadKind: flushing and requesting buffers, instrumentation, resources. The
others are the program's own: compiling and loading its kernels."""
_LOSS: Final = ("records", "buffers", "messages", "malformed")


class StepMaker(Protocol):
    """Makes steps of batches (:mod:`kat_otel.instrumentation.steps.tree`)."""

    @property
    def worker(self) -> Worker | None:
        """Who the worker is; None until it has said so."""
        ...

    def add(self, batch: Batch) -> list[Step]:
        """Takes a batch and returns the steps that it closes."""
        ...

    def flush(self) -> list[Step]:
        """Closes what is open, at the end."""
        ...


class Sender:
    """Runs until the source ends or it is told to.

    Args:
        settings: of the worker.
        source: where batches come from.
        maker: makes steps of them.
        exporter: takes what leaves; started and closed here.
        control: the control channel, if there is one; started and closed here.
        counts: of this process.
        shares_gil: whether this is a thread of the server, whose time costs in full.
        on_tick: called a few times a second, for metrics; what it raises is counted.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        maker: StepMaker,
        exporter: Exporter,
        control: Control | None = None,
        *,
        counts: Counts,
        shares_gil: bool = False,
        on_tick: Callable[[Worker, Counts], None] | None = None,
    ) -> None:
        self._source = source
        self._maker = maker
        self._exporter = exporter
        self._control = control
        self._counts = counts
        self._on_tick = on_tick
        self._sampling = Sampling(settings)
        self._recorder = Recorder(settings.recorder_seconds, settings.recorder_mib * 2**20)
        self._budget = Budget(settings.budget, time.monotonic)
        self._early = EarlySteps()
        self._packer = fastest_packer()
        self._digester = Digests.fastest()
        self._weight = 1.0 if shares_gil else 1.0 / len(os.sched_getaffinity(0))
        self._shares_gil = shares_gil
        self._busy_ns = 0
        self._own_ns = self._cpu_ns()
        self._loss = Loss()
        self._ordered: Mode | None = None
        self._last = -1
        self._named = False
        self._again: deque[tuple[int, Step]] = deque(maxlen=_MAX_AGAIN)  # nonce, and what to send
        self._digests: list[bytes] = []
        self._digests_since = 0.0
        self._ended = False
        self._more = False  # the last batch held something: the source may hold more
        self._asked = False  # an operator wants what is recorded
        self._toggles = 0

    # --- what others say, from any thread or signal handler: so nothing is locked ------------

    def end(self) -> None:
        """Ends the loop: what has closed is sent, what is open is closed as it is."""
        self._ended = True

    def send_recorded(self) -> None:
        """Sends what the flight recorder holds: an operator's request."""
        self._asked = True

    def toggle(self) -> None:
        """Switches capture off, or on again: an operator's request."""
        self._toggles += 1

    # --- the loop ----------------------------------------------------------------------------

    def run(self, drain: float = 2.0) -> None:
        """Takes batches until the worker is gone or :meth:`end` is called, then drains.

        Args:
            drain: seconds that the last sending may take.
        """
        self._exporter.start()
        if self._control is not None:
            self._control.start()
        try:
            while not self._ended:
                try:
                    if self._turn():
                        break
                except Exception:  # noqa: BLE001 - counted, and logged with its traceback
                    self._failed("batches.failed")
                    time.sleep(_TAKE_S)  # a source that always fails must not spin
            if self._ended:  # not by the source: it may hold more
                until = time.monotonic() + _LAST_S
                while self._guarded(self._turn, "batches.failed") is False and self._more:
                    if time.monotonic() >= until:
                        break
            self._steps(self._guarded(self._maker.flush, "steps.failed") or [])
            self._counts.add("steps.dropped", len(self._early.take()), "worker_unknown")
            self._guarded(self._flush_digests, "steps.failed")
        finally:
            self._exporter.close(drain)
            if self._control is not None:
                self._control.close()
            self._guarded(self._source.close, "source.failed")

    def _turn(self) -> bool:
        """Handles one batch; returns whether it was the last."""
        self._obey()
        batch = self._source.take(_TAKE_S)
        self._more = batch.some
        steps = self._maker.add(batch)
        self._note(batch, steps)
        self._steps(steps)
        self._send_asked()
        now = time.monotonic()
        if self._digests and now - self._digests_since >= _DIGEST_WAIT_S:
            self._flush_digests()
        worker = self._maker.worker
        if worker is not None:
            self._say_where(worker)
            tick = self._on_tick
            if tick is not None:
                self._guarded(lambda: tick(worker, self._counts), "metrics.failed")
        return batch.ended

    def _obey(self) -> None:
        """Takes orders and signals, and tells capture how much to record."""
        sampling = self._sampling
        if self._control is not None:
            sampling.obey(self._control.orders)
        if self._toggles:
            toggles, self._toggles = self._toggles, 0
            sampling.silenced ^= toggles % 2 == 1
            logger.warning("capture switched %s", "off" if sampling.silenced else "on again")
        sampling.budget = self._budget.level
        mode = sampling.mode
        if mode != self._ordered:
            logger.info("capture: mode %s", mode)
            self._source.order(mode)
            self._ordered = mode
            self._counts.set("mode", LEVELS.index(mode))
            if mode != "full":
                self._recorder.clear()

    def _note(self, batch: Batch, steps: Sequence[Step]) -> None:
        """Counts what was lost, and what was spent."""
        for what in _LOSS:
            more = getattr(batch.loss, what) - getattr(self._loss, what)
            self._counts.add("lost", max(0, more), what)
        self._loss = batch.loss
        own, tracing = self._cpu_ns(), 0
        if len(batch.overheads):
            ours = batch.overheads[np.isin(batch.overheads["kind"], _OF_TRACING)]
            tracing = int((ours["end"] - ours["start"]).sum())
        cost = max(0, batch.busy_ns - self._busy_ns) + tracing
        cost += self._weight * (own - self._own_ns)
        self._busy_ns, self._own_ns = batch.busy_ns, own
        self._budget.observe(sum(int(s.table.duration_ns[:1].sum()) for s in steps), cost)
        self._counts.set("overhead", self._budget.spent)

    def _say_where(self, worker: Worker) -> None:
        if self._control is not None and self._last >= 0 and worker.resource.rank >= 0:
            first = self._recorder.first if self._sampling.mode == "full" else self._last + 1
            instance, rank = worker.resource.instance, worker.resource.rank
            self._control.at(Poll(instance, rank, self._last, max(0, first)))

    # --- steps -------------------------------------------------------------------------------

    def _steps(self, steps: Sequence[Step]) -> None:
        worker = self._maker.worker
        if worker is None:
            for step in steps:
                gone = self._guarded(lambda one=step: self._early.add(one), "steps.failed")
                self._counts.add("steps.dropped", gone or 0, "worker_unknown")
            return
        for step in (*self._early.take(), *steps) if len(self._early) else steps:
            self._guarded(lambda one=step: self._step(one, worker), "steps.failed")

    def _step(self, step: Step, worker: Worker) -> None:
        mode = self._sampling.mode
        self._last = step.step
        if mode == "off":
            self._counts.add("steps.dropped", reason="off")
            return
        self._counts.add("steps")
        if mode == "full":
            self._recorder.add(step)
        named = not self._named or step.step % NAMES_EVERY == 0
        self._named = True
        if self._sampling.whole(step.step):
            table = with_digest(step, worker, self._digester, named=named)
            self._send_whole(step, worker, worker.nonce, table)
        else:
            said = digest_span(self._packer, step, worker, self._digester, named=named)
            if not self._digests:
                self._digests_since = time.monotonic()
            self._digests.append(said)
            if len(self._digests) >= _DIGEST_STEPS:
                self._flush_digests()

    def _send_whole(self, step: Step, worker: Worker, nonce: int, table: SpanTable) -> None:
        whole = identified(table, worker.resource.rank, nonce, step.step, step.micro)
        requests = [request(worker.resource, lot) for lot in self._packer.pack(whole)]
        self._exporter.offer(Parcel("traces", "whole", requests, len(whole)))

    def _flush_digests(self) -> None:
        worker = self._maker.worker
        if worker is not None and self._digests:
            spans: list[Buffer] = [*self._digests]
            self._digests = []
            parcel = Parcel("traces", "digests", [request(worker.resource, spans)], len(spans))
            self._exporter.offer(parcel)

    def _send_asked(self) -> None:
        """Sends recorded steps again, whole, under the traces of captures."""
        worker = self._maker.worker
        if worker is None:
            return
        recorder, last = self._recorder, self._last
        for capture, steps, missed in self._sampling.recorded(recorder.first, last):
            self._counts.add("captures.missed", missed)
            for number in steps:
                self._note_again(recorder.take(number, number), worker, capture)
        if self._asked:
            self._asked = False
            held = recorder.take(0, 2**31 - 1)
            logger.info("an operator asked: %d recorded steps are sent", len(held))
            self._note_again(held, worker, OPERATOR)
        while self._again and self._exporter.has_room:
            nonce, step = self._again.popleft()
            self._send_whole(step, worker, nonce, described(step, worker))
            self._counts.add("captures.steps")

    def _note_again(self, steps: Sequence[Step], worker: Worker, capture: str) -> None:
        nonce = capture_nonce(worker.nonce, capture)
        if not steps:
            self._counts.add("captures.missed")
        room = _MAX_AGAIN - len(self._again)
        self._counts.add("captures.missed", max(0, len(steps) - room))
        self._again.extend((nonce, step) for step in steps[:room])

    # --- what fails --------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], Made], event: str) -> Made | None:
        """Returns what ``work`` returns; None if it fails, which is counted and logged."""
        try:
            return work()
        except Exception:  # noqa: BLE001 - counted, and logged with its traceback
            self._failed(event)
            return None

    def _failed(self, event: str) -> None:
        self._counts.add(event)
        self._counts.say(logger, event, "%s: counted, and left out", event, exc_info=True)

    def _cpu_ns(self) -> int:
        """Returns the CPU time that sending has taken: of the process, or of its two threads."""
        if self._shares_gil:
            return time.thread_time_ns() + self._exporter.cpu_ns
        return time.process_time_ns()
