"""Which step each record belongs to, and which steps still wait for their GPU work.

Host work belongs to the step that its thread was in; GPU work to the step of its call, by
correlation; GPU work without a call to the step of the work before it on its stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.steps.forms import pick
from kat_otel.instrumentation.steps.marks import OUTSIDE, Marks
from kat_otel.spans import UNKNOWN, SpanKind
from kat_otel.trees import fill_along, join_launches

__all__ = ["UNDECIDED", "WAIT_NS", "Attributed", "Streams", "attribute", "in_order", "joined"]

UNDECIDED: Final = -2
"""A mark may still come that says otherwise."""

WAIT_NS: Final = 2_000_000_000
"""After a step's end, or of silence on a stream: how long GPU work is waited for."""

_BY_TIME: Final = -3
_MAX_GONE: Final = 1 << 16
_MAX_GRAPHS: Final = 1 << 16
_LAUNCH: Final = int(SpanKind.LAUNCH)

Int64 = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Attributed:
    """Records with their steps.

    Attributes:
        calls: records of CALL in order of time, one for each correlation id.
        work: records of WORK.
        of_call, of_work: serial of the step of each, OUTSIDE or UNDECIDED, int64.
        call_of: position in ``calls`` of the call of each piece of GPU work, NO_PARENT if it is
            not there, int64.
        arrived: pieces of GPU work of each call, int64.
        graph_calls: positions of the calls that launched graphs whose nodes are recorded, and
            the graph of each: a few a step.
        twins: calls left out, a driver's call within the runtime's that has the same id.
    """

    calls: NDArray[Any]
    work: NDArray[Any]
    of_call: Int64
    of_work: Int64
    call_of: Int64
    arrived: Int64
    graph_calls: list[tuple[int, int]]
    twins: int


def in_order(records: NDArray[Any]) -> NDArray[Any]:
    """Returns records in order of their start; equal ones by all they say, however they came."""
    start: Int64 = records["start"]
    if (start[1:] > start[:-1]).all():
        return records
    order = np.argsort(start, kind="stable")
    records = pick(records, order)
    start = records["start"]
    if (start[1:] > start[:-1]).all():
        return records
    columns = [name for name in reversed(records.dtype.names or ()) if name != "start"]
    return pick(records, np.lexsort([*(records[name] for name in columns), start]))


def joined(calls: NDArray[Any], correlation: Int64) -> Int64:
    """Returns the position of the call of each correlation id, NO_PARENT if there is none."""
    zero = np.zeros(1, np.int8)
    return join_launches(
        np.broadcast_to(zero, len(calls)),
        calls["correlation"].copy(),
        np.broadcast_to(zero, len(correlation)),
        correlation,
    )


class Streams:
    """What is known of each stream, by the number of its lane, from work that has left.

    Attributes:
        late: GPU work that came when its call had left.
    """

    def __init__(self) -> None:
        self._start = np.empty(0, np.int64)  # of the last work whose call was known
        self._serial = np.empty(0, np.int64)
        self._launched = np.empty(0, np.int64)  # start of the latest call of work that has come
        self._ended = np.empty(0, np.int64)  # end of the latest work that has come
        self._gone = np.empty(0, np.int64)  # correlation ids of calls that left without all of it
        self._nodes: dict[int, int] = {}
        self.late = 0

    def grow(self, lanes: int) -> None:
        """Makes room for so many lanes."""
        more = np.zeros(max(lanes - len(self._start), 0), np.int64)
        if len(more):
            self._start = np.append(self._start, more)
            self._serial = np.append(self._serial, more + OUTSIDE)
            self._launched = np.append(self._launched, more)
            self._ended = np.append(self._ended, more)

    def note(self, found: Attributed) -> None:
        """Takes note of what has come, before any of it leaves."""
        work = found.work
        np.maximum.at(self._ended, work["lane"], work["end"])
        known = np.flatnonzero(found.call_of >= 0)
        np.maximum.at(
            self._launched, work["lane"][known], found.calls["start"][found.call_of[known]]
        )

    def leave(self, found: Attributed, calls: NDArray[np.bool_], work: NDArray[np.bool_]) -> None:
        """Takes note of what leaves: ``calls`` and ``work`` say which, bool."""
        rows = np.flatnonzero(work & (found.call_of >= 0))
        lane, start = found.work["lane"][rows], found.work["start"][rows]
        np.maximum.at(self._start, lane, start)
        last = start == self._start[lane]
        self._serial[lane[last]] = found.of_work[rows[last]]
        short = calls & (found.calls["kind"] == _LAUNCH) & ~self._complete(found)
        if short.any():
            gone = np.append(self._gone, found.calls["correlation"][short])
            self._gone = gone[-_MAX_GONE:]
        self._count_nodes(found, calls)

    def too_late(self, work: NDArray[Any], call_of: Int64) -> NDArray[np.bool_]:
        """Which pieces of GPU work have a call that left before they came, bool ``(n,)``."""
        late = call_of < 0
        if late.any() and len(self._gone):
            late[late] = np.isin(work["correlation"][late], self._gone)
            return late
        return np.zeros(len(work), np.bool_)

    def before(self) -> tuple[Int64, Int64]:
        """Returns start and serial of the last work that left, of every lane."""
        return self._start, self._serial

    def awaited(self, found: Attributed, until: int) -> NDArray[np.bool_]:
        """Which calls may still get GPU work, bool ``(calls,)``.

        A stream does one thing after another. When every stream in use has come to work that
        was launched later, a call without work has none: it was captured into a graph, or
        copied nothing.
        """
        awaited = (found.calls["kind"] == _LAUNCH) & ~self._complete(found)
        if awaited.any():
            used = self._ended >= until - WAIT_NS
            if used.any():
                awaited &= found.calls["start"] >= self._launched[used].min()
        return awaited

    def _complete(self, found: Attributed) -> NDArray[np.bool_]:
        """Whether a call has got its GPU work: of a graph, as many nodes as the last time."""
        complete = found.arrived > 0
        for call, graph in found.graph_calls:
            complete[call] = int(found.arrived[call]) >= self._nodes.get(graph, _MAX_GRAPHS)
        return complete

    def _count_nodes(self, found: Attributed, calls: NDArray[np.bool_]) -> None:
        for call, graph in found.graph_calls:
            if calls[call]:
                if len(self._nodes) >= _MAX_GRAPHS:
                    self._nodes.clear()
                self._nodes[graph] = int(found.arrived[call])


def attribute(
    calls: NDArray[Any], work: NDArray[Any], marks: Marks, streams: Streams, until: int
) -> Attributed:
    """Finds the step of calls and GPU work.

    Args:
        calls: of form CALL, in any order.
        work: of form WORK, in any order.
        marks: the steps.
        streams: what was there before; counts what comes too late, which is left out.
        until: before this (Unix ns) all marks, and the calls of all work, have come.
    """
    calls = in_order(calls)
    correlation = calls["correlation"]
    twins = 0
    if not (correlation[1:] > correlation[:-1]).all():
        own = joined(calls, correlation)
        single = (own < 0) | (own == np.arange(len(calls)))
        twins = len(calls) - int(np.count_nonzero(single))
        calls = pick(calls, single) if twins else calls
    of_call = marks.at(calls["thread"], calls["start"])
    of_call[np.searchsorted(calls["start"], until) :] = UNDECIDED
    call_of = joined(calls, work["correlation"])
    late = streams.too_late(work, call_of)
    if late.any():
        streams.late += int(np.count_nonzero(late))
        work, call_of = pick(work, ~late), call_of[~late]
    known = call_of >= 0
    of_work = of_call[call_of] if len(calls) else np.full(len(work), UNDECIDED, np.int64)
    if not known.all():
        _fill(work, of_work, known, marks=marks, streams=streams, until=until)
    arrived = np.bincount(call_of[known], minlength=len(calls))
    graph_calls = _graph_calls(work, call_of)
    return Attributed(calls, work, of_call, of_work, call_of, arrived, graph_calls, twins)


def _graph_calls(work: NDArray[Any], call_of: Int64) -> list[tuple[int, int]]:
    nodes = np.flatnonzero(work["graph_node"] != UNKNOWN)
    nodes = nodes[call_of[nodes] >= 0]
    if not len(nodes):
        return []
    calls, first = np.unique(call_of[nodes], return_index=True)
    return list(zip(calls.tolist(), work["graph"][nodes[first]].tolist(), strict=True))


def _fill(
    work: NDArray[Any],
    of_work: Int64,
    known: NDArray[np.bool_],
    *,
    marks: Marks,
    streams: Streams,
    until: int,
) -> None:
    """Sets the step of work without a call: that of the work before it on its stream.

    Where nothing stands before it, or only work of steps that have left, the step in which it
    began: a guess that is right as long as the GPU keeps up with the host.
    """
    start, serial = streams.before()
    lanes = len(start)
    earliest = np.full(lanes, np.iinfo(np.int64).min)
    seen = start > 0
    order = np.lexsort((work["correlation"], work["start"]))  # ties, whichever came first
    filled = np.empty(len(work), np.int64)
    filled[order] = fill_along(
        np.concatenate([np.arange(lanes), np.arange(lanes)[seen], work["lane"][order]]),
        np.concatenate([earliest, start[seen], work["start"][order]]),
        np.concatenate([np.full(lanes, _BY_TIME), serial[seen], of_work[order]]),
        np.concatenate([np.ones(lanes + int(seen.sum()), np.bool_), known[order]]),
    )[-len(work) :]
    alone = (filled != UNDECIDED) & ~np.isin(filled, list(marks.steps))
    filled[alone] = marks.at(None, work["start"][alone])
    filled[~known & (work["start"] >= until)] = UNDECIDED
    of_work[~known] = filled[~known]
