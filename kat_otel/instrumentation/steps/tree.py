"""Batches of records in, closed steps out.

A step leaves when its end was marked, nothing launched later can belong to it, and the GPU work
of its launches has come, or is not waited for any more. Whatever comes is in a step, or counted
in :class:`Counts`, or still waits; and what waits is bounded.
"""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import DecodeError
from kat_otel.instrumentation.capture.records import Batch, Loss
from kat_otel.instrumentation.identity.worker import Links, Worker
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.attribution import (
    UNDECIDED,
    WAIT_NS,
    Attributed,
    Streams,
    attribute,
    in_order,
    joined,
)
from kat_otel.instrumentation.steps.collectives import Sequences
from kat_otel.instrumentation.steps.columns import to_tables
from kat_otel.instrumentation.steps.filling import Fill, fastest
from kat_otel.instrumentation.steps.forms import CALL, RANGE, TRACING, WAIT, WORK, pick
from kat_otel.instrumentation.steps.host_ranges import HostRanges
from kat_otel.instrumentation.steps.leaving import LATE, LEAVES, OUTSIDE_STEPS, STAYS, Fates, choose
from kat_otel.instrumentation.steps.marks import Marked, Marks
from kat_otel.instrumentation.steps.names import MAX_TEXTS, Names, Numbers
from kat_otel.instrumentation.steps.putting import Putting
from kat_otel.instrumentation.steps.ranges import RangeMarks
from kat_otel.instrumentation.steps.said_ranges import SaidRanges
from kat_otel.instrumentation.steps.step import Step
from kat_otel.instrumentation.steps.waiting import Waiting

__all__ = ["MAX_WAITING", "Counts", "StepMaker"]

logger: Final = logging.getLogger(__name__)

Int64 = NDArray[np.int64]

MAX_WAITING: Final = 2_000_000
"""Records that may wait; beyond it steps leave as they are."""

_END_OF_TIME: Final = 1 << 62
_SWEEP: Final = 1 << 16  # records of no step that may gather before they are looked through
_MAX_LINKS: Final = 256
_UNMARKED_NS: Final = 60_000_000_000


@dataclass(slots=True)
class Counts:
    """What became of records that are in no step, counted since the start.

    Attributes:
        outside: of no step: before the first mark, or long after the last.
        late: of a step that had left.
        left_out: calls that launched nothing and were short, waits that are said twice.
        unfinished: launches whose GPU work was no longer waited for.
        unfit: dropped because too much waited.
        malformed: messages of the worker that make no sense.
        unsaid: ranges that a hook saw, and for which there was no room.
    """

    outside: int = 0
    late: int = 0
    left_out: int = 0
    unfinished: int = 0
    unfit: int = 0
    malformed: int = 0
    unsaid: int = 0


class StepMaker:
    """Makes the steps of one worker process.

    Args:
        settings: for the ranges that are steps, where no engine says it.
        fill: makes the columns of steps; None: the fastest way there is.
        putting: puts records in form.

    Attributes:
        worker: who the worker says it is; None before it has.
        counts: what became of records that are in no step.
    """

    def __init__(
        self,
        settings: Settings,
        fill: Fill | None = None,
        putting: Callable[[Names, Numbers], Putting] = Putting.fastest,
    ) -> None:
        self._fill = fill or fastest()
        self.worker: Worker | None = None
        self.counts = Counts()
        self._names = Names()
        self._waiting = Waiting(self._names, putting)
        self._marks = Marks()
        self._ranges = RangeMarks(settings.step_range) if settings.step_range else None
        self._said = SaidRanges()
        self._sequences = Sequences()
        self._streams = Streams()
        self._links: OrderedDict[tuple[int, int], list[tuple[str, str]]] = OrderedDict()
        self._lost = 0
        self._until = 0  # of the last look
        self._settled = 0  # records that waited after it
        self._unmarked_since = 0
        self._warned = False

    @property
    def waiting(self) -> int:
        """Records that wait for their step to end."""
        return self._waiting.rows

    def add(self, batch: Batch) -> list[Step]:
        """Takes a batch; returns the steps that are complete now, in order of their beginning."""
        for text in batch.texts:
            self._hear(text)
        if len(self._names.strings) > MAX_TEXTS:
            old = self._names.strings
            self._names.renew()
            self._waiting.rename(old, self._names)
        left_out = self._waiting.left_out
        self._waiting.add(batch)
        self.counts.left_out += self._waiting.left_out - left_out
        until = self._mark(batch)
        if self._waiting.rows > MAX_WAITING:
            return self._overflow(until)
        if until <= self._until:
            return []
        ready = self._marks.over(until)
        if not ready and self._waiting.rows - self._settled < _SWEEP:
            return []
        return self._close(until, set(ready))

    def flush(self) -> list[Step]:
        """Returns the steps that have begun, as they are: nothing comes any more."""
        return self._close(_END_OF_TIME, set(self._marks.steps), wait=False)

    def _mark(self, batch: Batch) -> int:
        """Takes the marks; returns before which time (Unix ns) all of them have come."""
        lost, self._lost = self._lost, max(self._lost, _lost(batch.loss))
        until = batch.until_ns
        if len(batch.steps):
            self._ranges = None  # an engine's hook knows better
            self._marks.say(batch.steps, lost)
        elif self._ranges is not None:
            self._marks.say(self._ranges.marks(batch), lost)
            until = self._ranges.until(until)
        elif not self._marks.seen and not self._warned:
            self._miss_marks(batch)
        return until

    def _miss_marks(self, batch: Batch) -> None:
        """Says once what to do, when a GPU has long worked and nobody has marked a step."""
        if not self._unmarked_since and len(batch.kernels) + len(batch.graphs):
            self._unmarked_since = batch.until_ns
        if 0 < self._unmarked_since < batch.until_ns - _UNMARKED_NS:
            self._warned = True
            logger.warning(
                "the GPU has worked for a minute and no step was seen: nothing is sent; use "
                "kat_otel.step(), or set KAT_STEP_RANGE to the NVTX range that is one step"
            )

    def _overflow(self, until: int) -> list[Step]:
        """Makes room: steps leave as they are; what still waits after that is dropped."""
        steps = self._close(until, set(self._marks.steps), wait=False, cut=True)
        if self._waiting.rows > MAX_WAITING // 2:
            self.counts.unfit += self._waiting.rows
            self._said.forget(self._waiting.of(RANGE))
            for form in (WORK, CALL, RANGE, WAIT, TRACING):
                self._waiting.keep(form, np.empty(0, form))
            self._settled = 0
        return steps

    def _close(
        self, until: int, ready: set[int], *, wait: bool = True, cut: bool = False
    ) -> list[Step]:
        """Takes the ready steps out.

        Args:
            until: before this all marks, calls and ended work have come, Unix ns.
            ready: serials of steps to which nothing more is launched.
            wait: for GPU work that has not come.
            cut: launches without work are losses.
        """
        waiting, marks, streams = self._waiting, self._marks, self._streams
        self._until = until
        streams.grow(len(waiting.lanes))
        late = streams.late
        found = attribute(waiting.of(CALL), waiting.of(WORK), marks, streams, until)
        streams.note(found)
        awaited = streams.awaited(found, until)
        if wait:
            ready -= self._unfinished(found, awaited, until)
        ranges = in_order(waiting.of(RANGE))
        decided = int(np.searchsorted(ranges["start"], until))
        self._sequences.number(ranges[:decided])
        of_range = marks.at(ranges["thread"], ranges["start"])
        of_range[decided:] = UNDECIDED
        self._said.attribute(ranges, of_range, marks, until)
        waits = in_order(waiting.of(WAIT))
        call_of_wait, of_wait = self._waits(waits, found, until)
        self._tracing(until)
        steps = [marks.steps[serial] for serial in sorted(ready)]
        fates = Fates(marks.steps, ready)
        fate = [fates.of(serial) for serial in (of_range, found.of_call, of_wait, found.of_work)]
        leaving = choose(steps, fates, found, (ranges, of_range), (waits, of_wait, call_of_wait))
        self.counts.left_out += leaving.left_out + found.twins
        self.counts.late += streams.late - late
        streams.leave(found, fate[1] != STAYS, fate[3] == LEAVES)
        lost = [self._lost - one.loss for one in steps]
        missing = self._missing(steps, found, awaited)
        self.counts.unfinished += sum(missing)
        if cut:
            lost = [one + more for one, more in zip(lost, missing, strict=True)]
        tables = to_tables(leaving, self._names, lost, self._said.attributes, self._fill)
        self._said.forget(pick(ranges, fate[0] != STAYS))
        marks.forget([one.serial for one in steps], until)
        records = (ranges, found.calls, waits, found.work)
        for form, one, code in zip((RANGE, CALL, WAIT, WORK), records, fate, strict=True):
            waiting.keep(form, pick(one, code == STAYS))  # now: what leaves was a view of it
            self.counts.outside += int(np.count_nonzero(code == OUTSIDE_STEPS))
            self.counts.late += int(np.count_nonzero(code == LATE))
        self._settled = waiting.rows
        return [
            Step(one.step, one.micro, one.flags, table, gone, self._linked(one), size)
            for one, (table, size), gone in zip(steps, tables, lost, strict=True)
        ]

    def _unfinished(self, found: Attributed, awaited: NDArray[np.bool_], until: int) -> set[int]:
        """Returns the serials of the steps whose GPU work is still waited for."""
        steps = self._marks.steps
        serials: list[int] = np.unique(found.of_call[awaited]).tolist()
        return {one for one in serials if one in steps and steps[one].end + WAIT_NS > until}

    def _missing(
        self, steps: list[Marked], found: Attributed, awaited: NDArray[np.bool_]
    ) -> list[int]:
        """Returns how many launches of each step are waited for no more."""
        serials: list[int] = found.of_call[awaited].tolist()
        return [serials.count(one.serial) for one in steps] if serials else [0] * len(steps)

    def _waits(self, waits: NDArray[Any], found: Attributed, until: int) -> tuple[Int64, Int64]:
        """Returns the call of each wait, and the serial of its step: the call's, or by time."""
        call_of = joined(found.calls, waits["correlation"].copy())
        of_wait = self._marks.at(None, waits["start"])
        of_wait[waits["start"] >= until] = UNDECIDED
        known = call_of >= 0
        of_wait[known] = found.of_call[call_of[known]]
        return call_of, of_wait

    def _tracing(self, until: int) -> None:
        """Adds the time that tracing took to the steps in which it did."""
        tracing = self._waiting.of(TRACING)
        decided = tracing["start"] < until
        waiting, tracing = pick(tracing, ~decided), pick(tracing, decided)
        self._waiting.keep(TRACING, waiting)
        took = tracing["end"] - tracing["start"]
        for serial, ns in zip(
            self._marks.at(None, tracing["start"]).tolist(), took.tolist(), strict=True
        ):  # a few a second: flushes and buffers
            if serial in self._marks.steps:
                self._marks.steps[serial].overhead_ns += ns

    def _hear(self, text: bytes) -> None:
        """Takes a message of the worker."""
        try:
            said = cast(dict[str, Any], json.loads(text))
            if "worker" in said:
                self.worker = Worker.decode(said["worker"])
            if "ranges" in said:
                ranges = HostRanges.decode(said["ranges"])
                self._waiting.put(RANGE, self._said.records(ranges, self._names))
                self.counts.unsaid = self._said.dropped
            if "links" in said:
                links = Links.decode(said["links"])
                self._links.setdefault((links.step, links.micro), []).extend(links.spans)
                while len(self._links) > _MAX_LINKS:
                    self._links.popitem(last=False)
        except (ArithmeticError, DecodeError, RecursionError, TypeError, ValueError) as error:
            if not self.counts.malformed:
                logger.warning("a message of the worker makes no sense: %s", error)
            self.counts.malformed += 1

    def _linked(self, one: Marked) -> tuple[tuple[str, str], ...]:
        return tuple(self._links.pop((one.step, one.micro), ()))


def _lost(loss: Loss) -> int:
    """Returns how much is lost so far; a buffer that made no sense held one record at least."""
    return loss.records + loss.messages + loss.malformed
