"""Which step a moment belongs to: what the marks of begin and end make of each thread's time.

A step lasts until the next one begins, or for :data:`LINGER_NS` after its end: samplers and the
like launch work when the engine's hook has returned. A thread that marks steps itself (two
micro-batches at once) is asked for its own innermost open step; others, and such a thread once
somebody else has begun a step after its last one ended, follow the latest mark of the process.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.capture.records import Edge, StepFlag

__all__ = ["LINGER_NS", "OUTSIDE", "Marked", "Marks"]

LINGER_NS: Final = 500_000_000
"""Host work that begins later than this after a step's end, and before the next, is nobody's."""

OUTSIDE: Final = -1
"""Of no step."""

_FOLLOW: Final = -2  # a thread's moment is what the process's is
_MAX_NEWER: Final = 64  # steps that may begin before one that does not end is given up

Int64 = NDArray[np.int64]


@dataclass(slots=True)
class Marked:
    """A step that has begun and whose spans have not left yet.

    Attributes:
        serial: counted up from 0: what tells steps apart whose numbers are the same.
        step, micro, flags, thread: as the mark said.
        begin: Unix ns.
        end: Unix ns; -1 while it is open.
        left: latest moment at which a thread's time stopped being this step's.
        loss: records lost when it began.
        overhead_ns: time that tracing took within it.
    """

    serial: int
    step: int
    micro: int
    flags: StepFlag
    thread: int
    begin: int
    end: int = -1
    left: int = -1
    loss: int = 0
    overhead_ns: int = 0


@dataclass(slots=True)
class _Lane:
    """The steps of one thread, or of the process: ``values[i]`` from ``times[i]`` on."""

    otherwise: int
    times: list[int] = field(default_factory=list[int])
    values: list[int] = field(default_factory=list[int])
    open: list[int] = field(default_factory=list[int])
    idle_since: int = -1

    @property
    def now(self) -> int:
        return self.values[-1] if self.values else self.otherwise

    def turn(self, time: int, value: int, steps: dict[int, Marked]) -> None:
        """From ``time`` on it is ``value``; whoever had a linger to run has it up to then."""
        if self.idle_since >= 0 and time > self.idle_since + LINGER_NS:
            self._set(self.idle_since + LINGER_NS, self.otherwise, steps)
        self.idle_since = -1
        self._set(time, value, steps)

    def _set(self, time: int, value: int, steps: dict[int, Marked]) -> None:
        before = steps.get(self.now)
        if before is not None:
            before.left = max(before.left, time)
        self.times.append(time)
        self.values.append(value)

    def breakpoints(self) -> tuple[list[int], list[int]]:
        """Returns times and values, with the end of the linger that runs."""
        if self.idle_since < 0:
            return self.times, self.values
        return [*self.times, self.idle_since + LINGER_NS], [*self.values, self.otherwise]

    def prune(self, floor: int) -> None:
        """Forgets what was before ``floor``."""
        keep = bisect_right(self.times, floor) - 1
        if keep > 0:
            del self.times[:keep], self.values[:keep]


class Marks:
    """The steps of a process, those that have not left.

    Attributes:
        steps: by serial, in order of their beginning.
        unpaired: ends without a beginning.
        unended: steps whose end never came, ended because many newer ones had begun.
        seen: steps begun since the start.
    """

    def __init__(self) -> None:
        self.steps: dict[int, Marked] = {}
        self.unpaired = 0
        self.unended = 0
        self.seen = 0
        self._process = _Lane(OUTSIDE)
        self._threads: dict[int, _Lane] = {}
        self._last = 0

    def say(self, marks: NDArray[Any], loss: int) -> None:
        """Takes marks (dtype STEP) in the order in which they were said.

        A mark that is said after another one does not stand before it: threads read the clock
        before they get their turn in the ring.
        """
        for time, thread, step, micro, edge, flags in marks.tolist():
            self._last = max(self._last, time)
            if edge == Edge.BEGIN:
                self._begin(thread, step, micro, flags, loss)
            else:
                self._end(thread, step, micro, flags)

    def _begin(self, thread: int, step: int, micro: int, flags: int, loss: int) -> None:
        lane = self._threads.setdefault(thread, _Lane(_FOLLOW))
        for serial in lane.open[:]:  # the same once more: its end was lost
            if (self.steps[serial].step, self.steps[serial].micro) == (step, micro):
                self._leave(self.steps[serial])
                self.unended += 1
        serial, self.seen = self.seen, self.seen + 1
        self.steps[serial] = Marked(
            serial, step, micro, StepFlag(flags), thread, self._last, loss=loss
        )
        for one in (self._process, lane):
            one.open.append(serial)
            one.turn(self._last, serial, self.steps)
        for other in self._threads.values():
            if not other.open and other.now != _FOLLOW:
                other.turn(self._last, _FOLLOW, self.steps)
        for old in [m for m in self.steps.values() if m.end < 0]:
            if serial - old.serial > _MAX_NEWER:
                self._leave(old)
                self.unended += 1

    def _end(self, thread: int, step: int, micro: int, flags: int) -> None:
        lane = self._threads.get(thread)
        for serial in reversed([*self._process.open, *(lane.open if lane else ())]):
            marked = self.steps[serial]
            if (marked.step, marked.micro) == (step, micro):
                marked.flags |= StepFlag(flags)
                self._leave(marked)
                return
        self.unpaired += 1

    def _leave(self, marked: Marked) -> None:
        """The step ends now."""
        marked.end = self._last
        for lane in (self._process, *self._threads.values()):
            if marked.serial not in lane.open:
                continue
            lane.open.remove(marked.serial)
            if lane.open:
                lane.turn(self._last, lane.open[-1], self.steps)
            else:
                lane.turn(self._last, marked.serial, self.steps)
                lane.idle_since = self._last

    def at(self, thread: Int64 | None, time: Int64) -> Int64:
        """Returns the serial of the step of each moment, int64 ``(n,)``; OUTSIDE if there is none.

        Args:
            thread: on which it was, int64 ``(n,)``; None: wherever.
            time: Unix ns, int64 ``(n,)``.
        """
        found = _look_up(self._process, time)
        if thread is None:
            return found
        for one, lane in self._threads.items():
            if self._is_process(lane):
                continue
            mine = np.flatnonzero(thread == one)
            own = _look_up(lane, time[mine])
            found[mine] = np.where(own == _FOLLOW, found[mine], own)
        return found

    def _is_process(self, lane: _Lane) -> bool:
        """Whether the thread's time is the process's: nobody else marks."""
        times, values = lane.breakpoints()
        whole_times, whole_values = self._process.breakpoints()
        if len(self._threads) > 1 or times != whole_times:
            return False
        pairs = zip(values, whole_values, strict=True)
        return all(own in {_FOLLOW, whole} for own, whole in pairs)

    def over(self, until: int) -> list[int]:
        """Returns the serials of the steps to which nothing launched from ``until`` on belongs."""
        lanes = (self._process, *self._threads.values())
        holds: dict[int, int] = {}
        for lane in lanes:
            if lane.idle_since >= 0:
                still = lane.idle_since + LINGER_NS
                holds[lane.now] = max(holds.get(lane.now, 0), still)
        return [
            serial
            for serial, one in self.steps.items()
            if one.end >= 0 and max(one.end, one.left, holds.get(serial, 0)) <= until
        ]

    def forget(self, serials: list[int], floor: int) -> None:
        """The steps have left, and nothing before ``floor`` is asked for but what is open."""
        for serial in serials:
            marked = self.steps[serial]
            if marked.end < 0:
                self._leave(marked)
            del self.steps[serial]
        floor = min([floor, *(one.begin for one in self.steps.values())])
        for lane in (self._process, *self._threads.values()):
            lane.prune(floor)
        settled = [
            thread
            for thread, lane in self._threads.items()
            if lane.values == [_FOLLOW] and not lane.open
        ]
        for thread in settled:
            del self._threads[thread]


def _look_up(lane: _Lane, time: Int64) -> Int64:
    times, values = lane.breakpoints()
    turns, value = np.array(times, np.int64), np.array([lane.otherwise, *values], np.int64)
    if (time[1:] >= time[:-1]).all():  # as it mostly is: few turns are looked up, not many times
        cuts = np.searchsorted(time, turns)
        return np.repeat(value, np.diff(cuts, prepend=0, append=len(time)))
    return value[np.searchsorted(turns, time, side="right")]
