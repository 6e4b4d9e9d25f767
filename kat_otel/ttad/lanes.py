"""The GPU work of a step in lanes: what ran on one stream of one rank, in order of its start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import njit
from kat_otel.spans import SpanTable
from kat_otel.ttad import loops
from kat_otel.ttad.loops import in_order, plain

__all__ = ["MAX_STREAMS", "Lanes", "alike", "gpu_spans", "in_lanes", "lanes"]

_ON_GPU = 6  # SpanKind.KERNEL and above
MAX_STREAMS = 64
"""Streams of a rank that are looked through one by one; a rank with more costs a sort."""


@dataclass(frozen=True, slots=True)
class Lanes:
    """All GPU spans by rank, stream and start; among equals in order of the table.

    Attributes:
        ranks: ranks with GPU work, int32 ``(R,)``, ascending.
        rows: rows of the table, int64 ``(total,)``.
        begin: where each lane begins in ``rows``, and the end of the last, int64 ``(L + 1,)``.
        stream: CUDA stream of each lane, int32 ``(L,)``.
        first: first lane of each rank, and the end of the last, int64 ``(R + 1,)``.
    """

    ranks: NDArray[np.int32]
    rows: NDArray[np.int64]
    begin: NDArray[np.int64]
    stream: NDArray[np.int32]
    first: NDArray[np.int64]


def lanes(table: SpanTable) -> Lanes:
    """Sorts the GPU spans of one step."""
    kind, resource = plain(table.kind), plain(table.resource)
    by_resource = gpu_spans(kind, resource, max(len(table.resources), 1))
    of_resource = [r.rank for r in table.resources]
    counts: list[int] = by_resource.tolist()
    present = sorted({rank for rank, n in zip(of_resource, counts, strict=False) if n})
    column_of = {rank: at for at, rank in enumerate(present)}
    column = np.array([column_of.get(rank, -1) for rank in of_resource] or [-1], np.int64)
    stream, start = plain(table.stream), plain(table.start_ns)
    ranks = np.array(present, np.int32)
    found = in_lanes(kind, resource, stream, start, column, len(present), sum(counts), MAX_STREAMS)
    if len(found[3]):
        return Lanes(ranks, *found)
    rows = np.flatnonzero(table.on_gpu)
    owner = column[resource[rows]]
    rows = rows[np.lexsort((start[rows], stream[rows], owner))]
    owner = column[resource[rows]]
    new = (np.diff(owner, prepend=-1) != 0) | (np.diff(stream[rows], prepend=0) != 0)
    begin = np.flatnonzero(new)
    first = np.searchsorted(owner[begin], np.arange(len(ranks) + 1))
    return Lanes(ranks, rows, np.append(begin, len(rows)), stream[rows[begin]], first)


@njit("int64[::1](uint8[::1], int32[::1], int64)")
def gpu_spans(kind: Any, resource: Any, resources: int) -> Any:
    """Number of spans on the GPU by resource."""
    count = np.zeros(resources, np.int64)
    for row in range(len(kind)):
        if kind[row] >= _ON_GPU:
            count[resource[row]] += 1
    return count


@njit(
    "Tuple((int64[::1], int64[::1], int32[::1], int64[::1]))"
    "(uint8[::1], int32[::1], int32[::1], int64[::1], int64[::1], int64, int64, int64)",
    uses=(loops,),
)
def in_lanes(
    kind: Any,
    resource: Any,
    stream: Any,
    start: Any,
    column: Any,
    ranks: int,
    total: int,
    most: int,
) -> Any:
    """A counting sort by lane; only lanes that are out of order are sorted by start.

    Returns:
        rows, begin, stream and first as in :class:`Lanes`; first is empty if a rank has more
        than ``most`` streams.
    """
    none = np.zeros(0, np.int64)
    streams = np.zeros((ranks, most), np.int32)
    sizes = np.zeros((ranks, most), np.int64)
    known = np.zeros(ranks, np.int64)
    place = np.empty(len(kind), np.int32)
    owner, lane = -1, 0
    for row in range(len(kind)):
        if kind[row] < _ON_GPU:
            continue
        mine = column[resource[row]]
        if mine != owner or streams[mine, lane] != stream[row]:  # mostly the same lane goes on
            owner, lane = mine, 0
            while lane < known[mine] and streams[mine, lane] != stream[row]:
                lane += 1
            if lane == most:
                return none, none, np.zeros(0, np.int32), none
            if lane == known[mine]:
                streams[mine, lane] = stream[row]
                known[mine] += 1
        sizes[mine, lane] += 1
        place[row] = lane
    first = np.zeros(ranks + 1, np.int64)
    for rank in range(ranks):
        first[rank + 1] = first[rank] + known[rank]
    begin = np.zeros(first[ranks] + 1, np.int64)
    lane_stream = np.empty(first[ranks], np.int32)
    free = np.zeros((ranks, most), np.int64)
    at = 0
    for rank in range(ranks):
        order = np.argsort(streams[rank, : known[rank]])
        for number in range(known[rank]):
            lane = order[number]
            lane_stream[first[rank] + number] = streams[rank, lane]
            begin[first[rank] + number] = at
            free[rank, lane] = at
            at += sizes[rank, lane]
    begin[first[ranks]] = at
    rows = np.empty(total, np.int64)
    starts = np.empty(total, np.int64)
    for row in range(len(kind)):
        if kind[row] >= _ON_GPU:
            mine = column[resource[row]]
            to = free[mine, place[row]]
            free[mine, place[row]] = to + 1
            rows[to] = row
            starts[to] = start[row]
    for number in range(first[ranks]):
        low, high = begin[number], begin[number + 1]
        if not in_order(starts, low, high):
            order = np.argsort(starts[low:high], kind="mergesort")
            rows[low:high] = rows[low:high][order]
    return rows, begin, lane_stream, first


@njit("boolean(int32[::1], int64[::1], int32[::1], int64[::1])")
def alike(token: Any, begin: Any, stream: Any, first: Any) -> bool:
    """Returns whether all ranks run the same on the same streams.

    Args:
        token: of each span, in the order of :class:`Lanes`, int32.
        begin: where the lanes begin.
        stream: of each lane.
        first: first lane of each rank.
    """
    lanes = first[1] if len(first) > 1 else 0
    for rank in range(1, len(first) - 1):
        if first[rank + 1] - first[rank] != lanes:
            return False
        for lane in range(lanes):
            other = first[rank] + lane
            low, size = begin[other], begin[other + 1] - begin[other]
            if stream[other] != stream[lane] or size != begin[lane + 1] - begin[lane]:
                return False
            for k in range(size):
                if token[low + k] != token[begin[lane] + k]:
                    return False
    return True
