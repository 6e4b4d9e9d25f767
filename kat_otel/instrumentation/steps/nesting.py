"""Which range of its thread a call or a range stands in."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.steps.forms import RANGE
from kat_otel.spans import NO_PARENT
from kat_otel.trees import innermost_enclosing

__all__ = ["Hosts", "inside", "inside_seen"]

Int64 = NDArray[np.int64]
_SIDES: Final[tuple[Literal["left", "right"], ...]] = ("left", "right")


class Hosts:
    """Host work: when, on which thread, of which step.

    Args:
        step: of each, int64 ``(n,)``.
        records: with ``start``, ``end`` and ``thread``.
    """

    def __init__(self, step: Int64, records: NDArray[Any]) -> None:
        self._records = records
        self.step = step
        self.thread: Int64 = records["thread"]
        self.start: Int64 = records["start"]
        self.end: Int64 = records["end"]

    def some(self, rows: Int64) -> Hosts:
        """Returns these rows of it."""
        return Hosts(self.step[rows], self._records[rows])

    def __len__(self) -> int:
        return len(self.start)


def inside(ranges: Hosts, calls: Hosts) -> tuple[Int64, Int64]:
    """Returns the innermost range that encloses each range, and each call, of the same step.

    Returns:
        Positions among the ranges, int64 ``(ranges,)`` and ``(calls,)``; NO_PARENT for none.
    """
    of_range = np.full(len(ranges), NO_PARENT, np.int64)
    of_call = np.full(len(calls), NO_PARENT, np.int64)
    if not len(ranges):
        return of_range, of_call
    threads = np.unique(ranges.thread)
    lane = ranges.step * len(threads) + np.searchsorted(threads, ranges.thread)
    of_range = innermost_enclosing(lane, ranges.start, ranges.end, np.zeros_like(lane))
    if not len(calls):
        return of_range, of_call
    asked, call_lane = _lanes_of(calls, threads)
    found, overlapping = _open_at(lane, ranges, of_range, call_lane, calls.start[asked])
    of_call[asked] = found
    fits = (found < 0) | (ranges.end[found] >= calls.end[asked])
    if len(overlapping):
        fits &= ~np.isin(call_lane, overlapping)
    odd = np.flatnonzero(~fits)
    if len(odd):
        rows = asked[odd]
        both = innermost_enclosing(
            np.concatenate([lane, call_lane[odd]]),
            np.concatenate([ranges.start, calls.start[rows]]),
            np.concatenate([ranges.end, calls.end[rows]]),
            np.concatenate([np.zeros_like(lane), np.ones_like(odd)]),
        )[len(lane) :]
        while (calls_found := both >= len(lane)).any():
            both[calls_found] = _outer(both, calls_found, len(lane))
        of_call[rows] = both
    return of_range, of_call


def inside_seen(ranges: Hosts, calls: Hosts, said: NDArray[np.bool_]) -> tuple[Int64, Int64]:
    """Returns what :func:`inside` does, where some ranges were said by a hook.

    These stand in the others and in each other, but nothing that was seen stands in them: a
    transfer goes on in the background, and what its thread does meanwhile is not part of it.

    Args:
        ranges, calls: as there.
        said: which of the ranges were said, bool ``(ranges,)``.
    """
    if not said.any():
        return inside(ranges, calls)
    nowhere = Hosts(np.empty(0, np.int64), np.empty(0, RANGE))
    of_range, _ = inside(ranges, nowhere)
    seen = np.flatnonzero(~said)
    of_seen, of_call = inside(ranges.some(seen), calls)
    place = np.append(seen, NO_PARENT)  # the last place is NO_PARENT's
    of_range[seen] = place[of_seen]
    return of_range, place[of_call]


def _lanes_of(calls: Hosts, threads: Int64) -> tuple[Int64, Int64]:
    """Returns the calls on these threads, and the number of step and thread of each."""
    if len(threads) == 1:
        asked = np.flatnonzero(calls.thread == threads[0])
        return asked, calls.step[asked]
    thread = np.minimum(np.searchsorted(threads, calls.thread), len(threads) - 1)
    asked = np.flatnonzero(threads[thread] == calls.thread)
    return asked, calls.step[asked] * len(threads) + thread[asked]


def _outer(both: Int64, which: NDArray[np.bool_], count: int) -> Int64:
    """A call is nobody's parent here: what stands in one stands in that one's range."""
    return both[both[which] - count]


def _open_at(
    lane: Int64, ranges: Hosts, parent: Int64, call_lane: Int64, time: Int64
) -> tuple[Int64, Int64]:
    """Returns the innermost range open at each time, and the lanes where that is not certain.

    A sweep over beginnings and ends: right where ranges nest, as pushed and popped ones do.
    """
    real = np.flatnonzero(ranges.end > ranges.start)
    ended = real[::-1]  # of equal ranges the later one is the inner one, and ends first
    event_lane = np.concatenate([lane[ended], lane[real]])
    event_time = np.concatenate([ranges.end[ended], ranges.start[real]])
    then = np.concatenate([parent[ended], real])
    # At one time: ends, the inner one's first; then beginnings, the outer one's first.
    begins = np.repeat([0, 1], len(real))
    tie = np.concatenate([-ranges.start[ended], -ranges.end[real]])
    order = np.lexsort((tie, begins, event_time, event_lane))
    ends = np.concatenate([ended, np.full(len(real), NO_PARENT)])[order]
    event_lane, event_time, then = event_lane[order], event_time[order], then[order]
    open_now = np.concatenate([[NO_PARENT], then[:-1]])
    overlapping = np.unique(event_lane[(ends >= 0) & (ends != open_now)])
    found = np.full(len(time), NO_PARENT, np.int64)
    lanes, edges = np.unique(event_lane, return_index=True)
    edges = np.append(edges, len(event_lane))
    order = np.arange(len(call_lane))
    if (call_lane[1:] < call_lane[:-1]).any():
        order = np.argsort(call_lane, kind="stable")
    low, high = (np.searchsorted(call_lane[order], lanes, side=side) for side in _SIDES)
    for place in range(len(lanes)):  # a few a step
        mine = order[low[place] : high[place]]
        first, last = int(edges[place]), int(edges[place + 1])
        event = first + np.searchsorted(event_time[first:last], time[mine], side="right") - 1
        found[mine] = np.where(event >= first, then[np.maximum(event, 0)], NO_PARENT)
    return found, overlapping
