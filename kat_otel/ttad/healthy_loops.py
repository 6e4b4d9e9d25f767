"""One look at a step of known shape: does anything in it deviate? Compiled as a whole.

What :mod:`kat_otel.ttad.detector` works out stage by stage in arrays that a report may ask for,
here goes through the same loops in one call, for the one question that most steps end with. The
answer is sure or it is none: each limit is drawn a little closer than a finding's, so that what
deviates, or almost does, goes the long way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kat_otel import per_string
from kat_otel.compiled import inline, njit
from kat_otel.per_string import NEW
from kat_otel.ttad import (
    anchors,
    durations,
    features,
    healthy_arrivals,
    healthy_work,
    lanes,
    lateness_loops,
    loops,
    meetings,
    robust,
    robust_loops,
)
from kat_otel.ttad.align import PLACES
from kat_otel.ttad.anchors import arrivals, waits
from kat_otel.ttad.durations import of_most
from kat_otel.ttad.features import gather, worker_steps
from kat_otel.ttad.healthy_arrivals import arrives_late, stretch_kinds
from kat_otel.ttad.healthy_work import moves_slowly, takes_longer
from kat_otel.ttad.lanes import MAX_STREAMS, gpu_spans, in_lanes
from kat_otel.ttad.meetings import apart, in_order_of_release, parts

__all__ = ["DIFFERENT", "DOUBTFUL", "HEALTHY", "NEW_TEXTS", "lanes_of_all", "look"]

HEALTHY, DOUBTFUL, DIFFERENT, NEW_TEXTS = 0, 1, 2, 3
"""Nothing deviates; something may; another shape; there are texts that nothing is known of."""

_LAUNCH, _KERNEL, _MEMCPY, _COLLECTIVE = 4, 6, 7, 9  # of SpanKind, as numbers for the loops
_TIMES, _COLUMN, _RING = (
    "float64[:, ::1]",
    "float64[::1]",
    "float64[:, :, ::1]",
)
_LONGS, _INTS = "int64[::1]", "int32[::1]"
_TREE = f"Tuple((uint8[::1], {_INTS}, {_INTS}))"
_SHAPE = f"Tuple(({_INTS}, {_LONGS}, {_LONGS}))"


@inline
def _meaning(kind: int, told: int) -> int:
    """As kernels.classify has it, from what is known of the name."""
    if kind == _COLLECTIVE and told == 0:
        return 1
    return told if kind in (_KERNEL, _COLLECTIVE) else 0


@njit(
    f"Tuple((int64[:, ::1], int64))(UniTuple({_LONGS}, 3), {_INTS}, UniTuple({_LONGS}, 4),"
    f" UniTuple({_INTS}, 4), {_SHAPE})",
    uses=(per_string,),
)
def _rows(lane: Any, stream: Any, of_text: Any, texts: Any, shape: Any) -> Any:
    """Rows ``(N, R)`` of a step whose ranks all run what the shape says, and whether they do."""
    flat, begin, first = lane
    streams, family, work = shape
    name, grid, block = texts[0], texts[1], texts[2]
    ranks, size = len(first) - 1, len(streams)
    rows = np.empty((size, ranks), np.int64)
    one, turned = np.zeros(size, np.int64), np.zeros(size, np.int64)
    differs = np.zeros(size, np.bool_)
    count = first[1]
    if len(flat) != size * ranks:
        return rows, DIFFERENT
    for rank in range(ranks):
        if first[rank + 1] - first[rank] != count:
            return rows, DIFFERENT
        turn = 1 + rank % PLACES
        for number in range(count):
            mine, at = first[rank] + number, begin[number]
            long = begin[number + 1] - at
            if stream[mine] != stream[number] or begin[mine + 1] - begin[mine] != long:
                return rows, DIFFERENT
            for node in range(at, at + long):
                row = flat[begin[mine] + node - at]
                rows[node, rank] = row
                told = of_text[1][name[row]]
                if told == NEW:
                    return rows, NEW_TEXTS
                if told != family[node] or streams[node] != number:
                    return rows, DIFFERENT
                grids, blocks = of_text[2][grid[row]], of_text[2][block[row]]
                if min(grids, blocks) == NEW:  # NEW is the least
                    return rows, NEW_TEXTS
                mixed = grids ^ (blocks << np.int64(1))
                if rank == 0:
                    one[node] = mixed
                differs[node] |= mixed != one[node]
                turned[node] ^= (mixed << np.int64(turn)) ^ (mixed >> np.int64(63 - turn))
    for node in range(size):
        if family[node] ^ (turned[node] if differs[node] else one[node]) != work[node]:
            return rows, DIFFERENT
    return rows, HEALTHY


@njit(
    f"Tuple(({_LONGS}, {_LONGS}, {_INTS}, {_LONGS}))"
    f"(uint8[::1], UniTuple({_INTS}, 2), {_LONGS}, {_LONGS}, int64)",
    uses=(lanes, loops),
)
def lanes_of_all(kind: Any, columns: Any, start: Any, column: Any, ranks: int) -> Any:
    """Sorts the GPU spans of one step, if every resource has some and none has too many streams.

    Args:
        kind: of all spans.
        columns: resource and stream of all spans.
        start: of all spans, ns.
        column: of each resource.
        ranks: how many there are.

    Returns:
        rows, begin, stream and first of :class:`lanes.Lanes`; first is empty if it cannot be done.
    """
    resource, stream = columns
    counts = gpu_spans(kind, resource, len(column))
    if counts.min() == 0:  # a rank without work on its GPU
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0, np.int32), none
    return in_lanes(kind, resource, stream, start, column, ranks, counts.sum(), MAX_STREAMS)


@njit(
    f"Tuple(({_COLUMN}, {_LONGS}, int64))({_TREE}, UniTuple({_LONGS}, 2),"
    f" Tuple(({_INTS}, {_LONGS})), {_LONGS}, UniTuple(int64, 4))",
    uses=(anchors, per_string),
)
def _host_waits(tree: Any, times: Any, copied: Any, column: Any, bounds: Any) -> Any:
    """As anchors.host_waits: ends of the host's waits by rank, and where each rank's begin."""
    kind, resource, parent = tree
    start_ns, duration_ns = times
    name, to_host = copied
    ranks, origin, least, slack = bounds
    rows, copies = waits((kind, parent), (start_ns, duration_ns), least, slack)
    count = len(rows)
    calls = np.empty(count + len(copies), np.int64)
    calls[:count] = rows
    for row in copies:
        told = to_host[name[row]]
        if told == NEW:
            return np.empty(0), np.zeros(ranks + 1, np.int64), NEW_TEXTS
        if told != 0:
            calls[count] = parent[row]
            count += 1
    first = np.zeros(ranks + 1, np.int64)
    for at in range(count):
        first[column[resource[calls[at]]] + 1] += 1
    for rank in range(ranks):
        first[rank + 1] += first[rank]
    free = first.copy()
    ends = np.empty(count)
    for at in range(count):
        row = calls[at]
        rank = column[resource[row]]
        ends[free[rank]] = start_ns[row] + duration_ns[row] - origin
        free[rank] += 1
    for rank in range(ranks):
        ends[first[rank] : first[rank + 1]].sort()
    return ends, first, HEALTHY


@njit(
    f"Tuple((UniTuple(int64, 5), UniTuple(float64, 2), {_TIMES}, UniTuple({_COLUMN}, 3)))"
    f"({_TREE}, UniTuple({_INTS}, 4), UniTuple({_LONGS}, 2),"
    f" UniTuple({_LONGS}, 3), {_INTS}, UniTuple({_LONGS}, 4), {_LONGS},"
    f" {_SHAPE}, Tuple(({_INTS}, int64)), UniTuple({_RING}, 3),"
    f" {_COLUMN}, Tuple((int64, int64, int64, int64, float64)), UniTuple(float64, 8))",
    uses=(
        anchors,
        durations,
        features,
        healthy_arrivals,
        healthy_work,
        lateness_loops,
        loops,
        meetings,
        per_string,
        robust,
        robust_loops,
    ),
)
def look(
    tree: Any,
    texts: Any,
    times: Any,
    lane: Any,
    stream: Any,
    of_text: Any,
    column: Any,
    shape: Any,
    family: Any,
    usual: Any,
    gaps: Any,
    measures: Any,
    limits: Any,
) -> Any:
    """Looks at one step of at least two ranks that are all peers.

    Args:
        tree: kind, resource and parent of all spans; every resource has GPU work.
        texts: name, grid, block and group of all spans.
        times: start and duration of all spans, ns.
        lane: rows, begin and first of :class:`lanes.Lanes`.
        stream: of each lane.
        of_text: what is known of each text: meaning, hash of the family, hash, "to the host".
        column: of each resource.
        shape: stream class, hash of the family and of the work of each node of the known shape.
        family: number of each node's family, and how many there are.
        usual: durations ``(K, N, R)`` and transfers ``(K, N, 1)`` of earlier steps; durations in
            order ``(N, R, limit)``, of few ranks only, else empty.
        gaps: at first meetings of earlier steps, ns.
        measures: resolution, shortest wait of a host, slack (ns), texts, tolerance of ends (ns).
        limits: pool, jitter, relative jitter, tail freedom, false-alarm rate, and the least excess
            of a kernel, a rank and a transfer.

    Returns:
        (answer, origin, launches, GPU spans, launched ones), (largest clock offset, gap at first
        meetings or -1), durations ``(N, R)``, and transfers ``(N,)``, begin and finish ``(R,)``.
    """
    kind, resource, parent = tree
    name, grid, block, group_of = texts
    start_ns, duration_ns = times
    resolution, blocked, slack, strings, tolerance = measures
    least = int(limits[0])
    jitter, relative, tail, rate = limits[1], limits[2], limits[3], limits[4]
    nothing = np.empty((0, 0)), (np.empty(0), np.empty(0), np.empty(0))
    rows, answer = _rows(lane, stream, of_text, texts, shape)
    if answer != HEALTHY:
        return (answer, 0, 0, 0, 0), (0.0, 0.0), *nothing
    size, ranks = rows.shape
    origin = start_ns.min()
    launches = launched = 0
    shaped = False
    for row in range(len(kind)):
        launches += kind[row] == _LAUNCH
        launched += kind[row] >= _KERNEL and parent[row] >= 0 and kind[parent[row]] == _LAUNCH
        shaped |= grid[row] != 0
    said = (origin, launches, size * ranks, launched)
    present, start, end, duration, has_launch, launch, _ = gather(
        rows, kind, start_ns, duration_ns, parent, origin
    )
    begin, finish = worker_steps(resource, start_ns, duration_ns, column, ranks, origin)
    semantics = np.empty(size, np.uint8)
    is_kernel, local = np.empty(size, np.bool_), np.empty(size, np.bool_)
    meetings_ = 0
    for node in range(size):
        row, other = rows[node, 0], rows[node, ranks - 1]
        told, others = of_text[0][name[row]], of_text[0][name[other]]
        if min(told, others) == NEW:
            return (NEW_TEXTS, 0, 0, 0, 0), (0.0, 0.0), *nothing
        semantics[node] = _meaning(kind[row], told)
        is_kernel[node] = kind[other] == _KERNEL and others == 0
        local[node] = semantics[node] == 0 and (is_kernel[node] or kind[other] == _MEMCPY)
        meetings_ += semantics[node] != 0
        for rank in range(ranks if semantics[node] != 0 else 0):
            if group_of[rows[node, rank]] != group_of[row]:  # clocks are compared within one only
                return (DOUBTFUL, *said), (0.0, 0.0), *nothing
    nodes = np.flatnonzero(semantics)
    offset, _, common = apart(present, end, nodes)
    largest = np.abs(offset).max()
    if common == 0 or largest > tolerance:
        return (DOUBTFUL, *said), (0.0, 0.0), *nothing
    node, part, group = parts(nodes, rows, group_of, present, end, tolerance)
    if len(node) == 0:
        return (DOUBTFUL, *said), (0.0, 0.0), *nothing
    node, group, member, arrival, release, previous, elapsed, transfer = in_order_of_release(
        node, part, group, start, end
    )
    wait, first_wait, answer = _host_waits(
        tree, times, (name, of_text[3]), column, (ranks, origin, blocked, slack)
    )
    if answer != HEALTHY:
        return (answer, *said), (0.0, 0.0), *nothing
    host, synced, entry, _, _, other_, _ = arrivals(
        (present, has_launch),
        (start, end, duration, launch),
        (shape[0], semantics),
        (node, member, previous),
        (arrival, release, elapsed),
        (wait, first_wait),
        float(resolution),
    )
    late, gap = arrives_late(
        (member, arrival, elapsed),
        (host, synced, entry, other_),
        stretch_kinds(node, previous, family[0], family[1]),
        gaps,
        (least, resolution + jitter, relative, tail, rate),
    )
    usable = np.empty((size, ranks), np.bool_)
    for at in range(size):
        usable[at] = local[at]
    if shaped:
        usable &= of_most(rows, grid, block, strings)
    work = duration, is_kernel, local, usable
    smallest = 4 * (resolution + jitter)
    if (
        late
        or takes_longer(work, (usual[0], usual[2]), (limits[0], smallest, limits[5], limits[6]))
        or moves_slowly(node, group, transfer, usual[1], (limits[0], limits[7]))
    ):
        return (DOUBTFUL, *said), (0.0, 0.0), *nothing
    moved = np.zeros(size)
    for at in range(len(node)):
        moved[node[at]] = transfer[at]
    return (HEALTHY, *said), (largest, gap), duration, (moved, begin, finish)
