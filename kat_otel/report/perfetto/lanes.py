"""Spans that overlap without lying in one another get lanes: a track of Perfetto is a stack.

An end there closes whatever began last. Two kernels of one stream that overlap (programmatic
dependent launch, a clock of whole microseconds) would silently exchange their ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_LANES", "lanes_of"]

Int64 = NDArray[np.int64]

MOST_LANES = 32


def lanes_of(track: Int64, start: Int64, end: Int64) -> tuple[Int64, Int64]:
    """Returns lane and end of every span so that the spans of a lane lie in one another or apart.

    Args:
        track: where each span is drawn, int64 ``(n,)``.
        start, end: ns, int64 ``(n,)``.

    Returns:
        The lane of its track, from 0, and its end: as it was, but where all lanes are taken the
        span is cut at the end of the one that it would cross. Both int64 ``(n,)``.
    """
    lane = np.zeros(len(track), np.int64)
    cut = end.copy()
    order = np.lexsort((-end, start, track))
    edges = np.flatnonzero(np.diff(track[order])) + 1
    for rows in np.split(order, edges):
        for island in _islands(start[rows], end[rows]):
            _stack(rows[island], start, cut, lane)
    return lane, cut


def _islands(start: Int64, end: Int64) -> list[slice]:
    """Returns the stretches of a track's spans in which one begins before another has ended.

    Most kernels follow one another: they are in none, and cost nothing more.
    """
    count = len(start)
    new = np.ones(count, bool)
    new[1:] = start[1:] >= np.maximum.accumulate(end)[:-1]
    begins = np.flatnonzero(new)
    sizes = np.diff(begins, append=count)
    large = np.flatnonzero(sizes > 1)
    pairs = zip(begins[large].tolist(), sizes[large].tolist(), strict=True)
    return [slice(first, first + size) for first, size in pairs]


def _stack(rows: Int64, start: Int64, end: Int64, lane: Int64) -> None:
    open_ends: list[list[int]] = [[]]
    pairs = zip(rows.tolist(), start[rows].tolist(), end[rows].tolist(), strict=True)
    for row, begins, ends in pairs:
        for place, stack in enumerate(open_ends):
            while stack and stack[-1] <= begins:
                stack.pop()
            if not stack or stack[-1] >= ends:
                stack.append(ends)
                lane[row] = place
                break
        else:
            if len(open_ends) < MOST_LANES:
                lane[row] = len(open_ends)
                open_ends.append([ends])
            else:
                lane[row] = MOST_LANES - 1
                end[row] = open_ends[-1][-1]
                open_ends[-1].append(open_ends[-1][-1])
