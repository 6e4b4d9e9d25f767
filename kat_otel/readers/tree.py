"""Parents of spans that carry no parent ids: by correlation, else by containment.

Pure functions over columns. Both are a sort and searches, so that ten million spans
take seconds and a hostile file cannot make them quadratic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import NO_PARENT

__all__ = ["innermost_enclosing", "join_launches"]

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
    known = np.flatnonzero(launch_correlation > 0)
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
