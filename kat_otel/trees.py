"""Parents of spans that carry no parent ids: by correlation, else by containment.

For files that were read and for live capture alike. Pure functions over columns: sorts and
searches, so that ten million spans take seconds and a hostile file cannot make them quadratic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import NO_PARENT

__all__ = ["WORKER_STEP_NAME", "fill_along", "innermost_enclosing", "join_launches"]

WORKER_STEP_NAME = "worker step"
"""Name of the span of one rank's step, whoever makes it."""

_SPARSEST = 16
"""Ids per launch up to which launches are looked up by id rather than searched."""

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]


def join_launches(
    launch_process: NDArray[Any],
    launch_correlation: NDArray[Any],
    process: NDArray[Any],
    correlation: NDArray[Any],
) -> Int64:
    """Returns for each piece of GPU work the position of the call that launched it.

    Correlation ids are counted per process, so ids of different processes never join. Several
    kernels may name one launch (a graph); of several launches with one id the first counts.

    Args:
        launch_process: process of each call, integers ``(m,)``.
        launch_correlation: their ids, integers ``(m,)``; CUPTI counts from 1, so 0 and below
            join nothing.
        process: process of the GPU work, integers ``(n,)``.
        correlation: its ids, integers ``(n,)``.

    Returns:
        Positions among the launches, int64 ``(n,)``; NO_PARENT where no launch was recorded.
    """
    found = np.full(len(correlation), NO_PARENT, dtype=np.int64)
    if not len(correlation) or not len(launch_correlation):
        return found
    known = np.flatnonzero(launch_correlation > 0)
    if _alone(launch_process, process):
        places = _places(launch_correlation, known)
        if places is not None:
            table, low = places
            at = correlation - low
            at[(at < 0) | (at >= len(table))] = len(table) - 1  # the spare place: no launch
            return table[at]
    order = known[np.lexsort((launch_correlation[known], launch_process[known]))]
    processes, ids = launch_process[order], launch_correlation[order]
    for one in np.unique(processes):  # a handful
        low, high = np.searchsorted(processes, [one, one + 1])
        mine = np.flatnonzero(process == one)
        place = low + np.searchsorted(ids[low:high], correlation[mine])
        place = np.minimum(place, high - 1)
        hit = ids[place] == correlation[mine]
        found[mine[hit]] = order[place[hit]]
    return found


def _alone(launch_process: NDArray[Any], process: NDArray[Any]) -> bool:
    """Whether all are of one process."""
    one = launch_process[0]
    return bool((launch_process == one).all() and (process == one).all())


def _places(correlation: NDArray[Any], known: Int64) -> tuple[Int64, int] | None:
    """Returns the launch of each id from the lowest on and that id; None if ids are too sparse.

    Ids are counted up, so those of one stretch of time mostly lie side by side, and looking one
    up is faster than searching it.
    """
    if not len(known):
        return None
    ids = correlation[known]
    low, high = int(ids.min()), int(ids.max())
    if high - low > _SPARSEST * len(known):
        return None
    table = np.full(high - low + 2, NO_PARENT, np.int64)
    table[(ids - low)[::-1]] = known[::-1]  # the first of several is written last and stays
    return table, low


def innermost_enclosing(
    lane: NDArray[Any],
    start: Int64,
    end: Int64,
    depth_hint: NDArray[Any],
    tolerance_ns: int = 0,
) -> Int64:
    """Returns for each interval the innermost one of the same lane that encloses it.

    Intervals are put in order of (start, depth hint, longest first, position); the parent is the
    nearest earlier one that ends no earlier. With a tolerance (a clock of whole microseconds
    rounds starts and durations separately) an end may exceed its parent's by so much, as long
    as the two overlap.

    Args:
        lane: host thread of each interval, integers ``(n,)``.
        start: ns, int64 ``(n,)``.
        end: ns, int64 ``(n,)``.
        depth_hint: integers ``(n,)``; of equal starts the smaller hint is the outer one.
        tolerance_ns: smallest time difference that the source's clock can tell, less one unit.

    Returns:
        Positions, int64 ``(n,)``; NO_PARENT for the outermost.
    """
    count = len(start)
    parent = np.full(count, NO_PARENT, dtype=np.int64)
    if count < 2:
        return parent
    order = np.lexsort((-end, depth_hint, start, lane))
    ends = end[order]
    need = ends
    if tolerance_ns:
        starts = start[order]
        need = np.where(ends > starts, np.maximum(ends - tolerance_ns, starts + 1), ends)
    found = _nearest_earlier_at_least(ends, need)
    lanes = lane[order]
    same = (found >= 0) & (lanes[np.maximum(found, 0)] == lanes)
    parent[order[same]] = order[found[same]]
    return parent


def fill_along(
    stream: NDArray[np.integer], start_ns: Int64, value: Int32, known: NDArray[np.bool_]
) -> Int32:
    """Returns ``value`` with unknown places filled from the nearest earlier known on the stream.

    A stream runs in order, so work without a launch record belongs to the step of the work
    before it; what stands before any known work takes the first known one's. Streams without
    any known work keep their value.

    Args:
        stream: integers ``(n,)``.
        start_ns: int64 ``(n,)``.
        value: int32 ``(n,)``.
        known: bool ``(n,)``.
    """
    order = np.lexsort((start_ns, stream))
    lanes, sure = stream[order], known[order]
    place = np.arange(len(order))
    first = np.zeros(len(order), np.int64)  # where each stream begins
    new = np.ones(len(order), bool)
    new[1:] = lanes[1:] != lanes[:-1]
    first = np.maximum.accumulate(np.where(new, place, 0))
    before = np.maximum.accumulate(np.where(sure, place, -1))
    after = np.minimum.accumulate(np.where(sure, place, len(order))[::-1])[::-1]
    last = (
        len(order)
        - 1
        - np.maximum.accumulate(np.where(np.append(new[1:], True)[::-1], place, 0))[::-1]
    )
    source = np.where(before >= first, before, np.where(after <= last, after, place))
    filled = value.copy()
    filled[order] = value[order[source]]
    return filled


def _nearest_earlier_at_least(values: Int64, need: Int64) -> Int32:
    """Returns for each i the largest j < i with ``values[j] >= need[i]``, or -1, int32 ``(n,)``.

    A segment tree of maxima, climbed and descended by all i at once: O(n log n) whatever the
    data, where walking up a stack would be quadratic on hostile input.
    """
    count = len(values)
    size = 1 << (count - 1).bit_length()
    tops = np.full(2 * size, np.iinfo(np.int64).min, dtype=np.int64)
    tops[size : size + count] = values
    level = size
    while level > 1:
        np.maximum(
            tops[level : 2 * level : 2],
            tops[level + 1 : 2 * level : 2],
            out=tops[level // 2 : level],
        )
        level //= 2
    found = np.full(count, -1, dtype=np.int32)
    active = np.arange(count, dtype=np.int32)
    node = active + np.int32(size)
    while len(active):
        odd = np.flatnonzero((node & 1 == 1) & (node > 1))  # their left neighbour stands before
        hit = odd[tops[node[odd] - 1] >= need[active[odd]]]
        who = active[hit]
        found[who] = _rightmost(tops, node[hit] - 1, need[who], size) - size
        onward = node > 1
        onward[hit] = False
        active, node = active[onward], node[onward] >> 1
    return found


def _rightmost(tops: Int64, node: Int32, need: Int64, size: int) -> Int32:
    """Returns the rightmost leaf at or below each node whose value is large enough.

    All nodes lie on one level, and below each there is such a leaf.
    """
    while len(node) and node[0] < size:
        right = 2 * node + 1
        node = np.where(tops[right] >= need, right, right - 1)
    return node
