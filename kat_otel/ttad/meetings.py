"""Collectives as meetings: who took part, when each arrived, when all were released.

The end of a barrier collective is one moment for all its members. That estimates the
offset between clocks, tells groups apart whose communicator is not known, and lets the
lateness of each stretch of work be measured from a common release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import njit
from kat_otel.kernels import Semantics
from kat_otel.spans import SpanTable
from kat_otel.ttad import loops
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.features import Features
from kat_otel.ttad.loops import median, plain
from kat_otel.verdict import Clock

__all__ = [
    "COINCIDENCE_NS",
    "Meetings",
    "apart",
    "clock_offsets",
    "in_order_of_release",
    "meetings",
    "on_one_host",
    "parts",
]

Float = NDArray[np.float64]

COINCIDENCE_NS = 50_000.0
"""Ends of one barrier collective lie within this: exit of a ring or a tree plus clock noise."""

_MIN_COMMON = 3
"""Fewest common collectives from which an offset between clocks is believed."""


@dataclass(frozen=True, slots=True)
class Meetings:
    """Collectives in order of their release; arrays ``(C, R)``, times in ns.

    Attributes:
        node: aligned node of each meeting, int64 ``(C,)``.
        member: the rank took part, bool.
        arrival: own start.
        release: own end.
        previous: index of the rank's previous meeting, int64; -1 if there is none.
        elapsed: arrival since the release from the previous meeting, or since the origin.
        transfer: last arrival to release, ``(C,)``.
        group: communicator, or a description of its members, by meeting.
    """

    node: NDArray[np.int64]
    member: NDArray[np.bool_]
    arrival: Float
    release: Float
    previous: NDArray[np.int64]
    elapsed: Float
    transfer: Float
    group: tuple[str, ...]


def tolerance_ns(features: Features) -> float:
    """How far apart the ends of one barrier collective may lie (ns)."""
    return COINCIDENCE_NS + 2 * features.resolution_ns


def on_one_host(table: SpanTable) -> bool:
    """Returns whether all workers of a table say that they run on the same host."""
    hosts = {resource.host for resource in table.resources}
    return len(hosts) == 1 and "" not in hosts


def clock_offsets(
    table: SpanTable, features: Features, alignment: Alignment
) -> tuple[Float, Clock]:
    """Estimates each rank's clock offset from the ends of common barrier collectives.

    Where ranks of several communicators have no collective in common (pipeline stages), offsets
    are passed on from one communicator to the next by the ranks that are in both.

    Args:
        table: for the communicators. Workers of one host read one clock: where their collectives
            end too far apart to tell (gloo's threads are woken when the host likes), it is none
            the less one.
        features: of the step.
        alignment: of the step.

    Returns:
        Offsets to take off, ns ``(R,)`` (zeros where none can be had), and the clock state.
    """
    ranks = len(alignment.ranks)
    none = np.zeros(ranks)
    if ranks < 2:
        return none, Clock(state="unaligned", max_offset_ns=0)
    nodes = np.flatnonzero(alignment.semantics)
    rows = alignment.rows[nodes]
    group = np.where(rows >= 0, table.group[np.maximum(rows, 0)], -1)
    one = (group == group.max(axis=1, keepdims=True)) | (rows < 0)
    shared = np.asarray(one.all(axis=1), np.bool_)
    offset, spread, common = apart(features.present, features.end, nodes[shared])
    if not common:
        offset, spread, common = _chained(
            features.present, features.end, nodes[shared], group[shared].max(axis=1)
        )
    if not common:
        return none, Clock(state="unaligned", max_offset_ns=0)
    tolerance = tolerance_ns(features)
    biggest = round(float(np.abs(offset).max()))
    if np.abs(offset).max() <= tolerance:
        return none, Clock(state="aligned", max_offset_ns=biggest)
    if common < _MIN_COMMON or spread.max() > tolerance:
        if on_one_host(table):
            return none, Clock(state="aligned", max_offset_ns=0)
        return none, Clock(state="unaligned", max_offset_ns=biggest)
    return offset, Clock(state="corrected", max_offset_ns=biggest)


def _chained(
    present: NDArray[np.bool_], end: Float, nodes: NDArray[np.int64], group: NDArray[np.int32]
) -> tuple[Float, Float, int]:
    """Offsets of ranks that communicators tie together, as :func:`apart`'s.

    Returns:
        Median and spread of each rank against the first, and the fewest collectives that a tie
        is made of; 0 if some rank is tied to no other.
    """
    ranks = end.shape[1]
    offset, spread = np.zeros(ranks), np.zeros(ranks)
    tied = np.zeros(ranks, np.bool_)
    tied[0] = True
    fewest = len(nodes)
    names: list[int] = np.unique(group[group > 0]).tolist()
    left: list[NDArray[np.intp]] = [np.flatnonzero(group == name) for name in names]
    while left and not tied.all():
        ties = next((at for at in left if (present[nodes[at]].all(axis=0) & tied).any()), None)
        if ties is None:
            return offset, spread, 0
        left = [at for at in left if at is not ties]
        here = np.asarray(present[nodes[ties]].all(axis=0), np.bool_)
        known, new = np.flatnonzero(here & tied), np.flatnonzero(here & ~tied)
        if not len(new):
            continue
        ends = end[nodes[ties]]
        usual = np.median(ends[:, known] - offset[known], axis=1, keepdims=True)
        differ = ends[:, new] - usual
        offset[new] = np.median(differ, axis=0)
        spread[new] = np.median(np.abs(differ - offset[new]), axis=0)
        tied[new] = True
        fewest = min(fewest, len(ties))
    return offset - np.median(offset), spread, fewest if tied.all() else 0


def meetings(table: SpanTable, features: Features, alignment: Alignment) -> Meetings:
    """Finds the meetings of the step.

    Members of a collective node are one meeting if they name the same communicator; where
    no name is known, if their ends coincide. Collectives without a common end (one-sided,
    unequal pairs) are no meetings: their ranks are not compared by arrival.
    """
    nodes = np.flatnonzero(alignment.semantics != Semantics.NONE.value)
    node, part, group = parts(
        nodes,
        alignment.rows,
        plain(table.group),
        features.present,
        features.end,
        tolerance_ns(features),
    )
    node, group, member, arrival, release, previous, elapsed, transfer = in_order_of_release(
        node, part, group, features.start, features.end
    )
    texts = {index: table.text(index) for index in set(group.tolist())}
    return Meetings(
        node=node,
        member=member,
        arrival=arrival,
        release=release,
        previous=previous,
        elapsed=elapsed,
        transfer=transfer,
        group=tuple([texts[index] for index in group.tolist()]),
    )


@njit(
    "Tuple((float64[::1], float64[::1], int64))(boolean[:, ::1], float64[:, ::1], int64[::1])",
    uses=(loops,),
)
def apart(present: Any, end: Any, nodes: Any) -> Any:
    """By how much each rank's ends of the nodes that all ranks have differ from the middle rank's.

    Returns:
        Median and median absolute deviation over these nodes, ``(R,)`` each, and their number.
    """
    ranks = end.shape[1]
    differ = np.empty((ranks, len(nodes)))
    scratch = np.empty(max(ranks, len(nodes)))
    count = 0
    for node in nodes:
        if not present[node].all():
            continue
        for rank in range(ranks):
            scratch[rank] = end[node, rank]
        middle = median(scratch, ranks)
        for rank in range(ranks):
            differ[rank, count] = end[node, rank] - middle
        count += 1
    offset, spread = np.zeros(ranks), np.zeros(ranks)
    for rank in range(ranks if count else 0):
        scratch[:count] = differ[rank, :count]
        offset[rank] = median(scratch, count)
        for at in range(count):
            scratch[at] = abs(differ[rank, at] - offset[rank])
        spread[rank] = median(scratch, count)
    return offset, spread, count


@njit(
    "Tuple((int64[::1], int32[:, ::1], int32[::1]))"
    "(int64[::1], int64[:, ::1], int32[::1], boolean[:, ::1], float64[:, ::1], float64)"
)
def parts(nodes: Any, rows: Any, group_of: Any, present: Any, end: Any, tolerance: float) -> Any:
    """Splits collective nodes by communicator and by coincidence of their ends.

    Returns:
        Node and communicator of each meeting, by node, communicator and end; and, by node of
        the table and rank, the meeting's place in that list (-1: none).
    """
    ranks = rows.shape[1]
    part = np.full((len(nodes), ranks), -1, np.int32)
    here, group, ends = np.empty(ranks, np.int64), np.empty(ranks, np.int32), np.empty(ranks)
    found = 0
    most = 0
    for node in nodes:
        most += present[node].sum() // 2
    node_of, name = np.empty(most, np.int64), np.empty(most, np.int32)
    for number in range(len(nodes)):
        node, count = nodes[number], 0
        low, high, one_group = np.inf, -np.inf, True
        for rank in range(ranks):
            if present[node, rank]:
                here[count], ends[count] = rank, end[node, rank]
                group[count] = group_of[rows[node, rank]]
                one_group &= group[count] == group[0]
                low, high = min(low, ends[count]), max(high, ends[count])
                count += 1
        if count < 2:
            continue
        if one_group and high - low <= tolerance:
            for at in range(count):
                part[number, here[at]] = found
            node_of[found], name[found] = node, group[0]
            found += 1
            continue
        order = np.argsort(ends[:count], kind="mergesort")
        order = order[np.argsort(group[:count][order], kind="mergesort")]
        begin = 0
        for at in range(1, count + 1):
            if (
                at < count
                and group[order[at]] == group[order[begin]]
                and ends[order[at]] - ends[order[at - 1]] <= tolerance
            ):
                continue
            if at - begin >= 2:
                for k in range(begin, at):
                    part[number, here[order[k]]] = found
                node_of[found], name[found] = node, group[order[begin]]
                found += 1
            begin = at
    return node_of[:found], part, name[:found]


@njit(
    "Tuple((int64[::1], int32[::1], boolean[:, ::1], float64[:, ::1], float64[:, ::1],"
    " int64[:, ::1], float64[:, ::1], float64[::1]))"
    "(int64[::1], int32[:, ::1], int32[::1], float64[:, ::1], float64[:, ::1])"
)
def in_order_of_release(node: Any, part: Any, group: Any, start: Any, end: Any) -> Any:
    """The arrays of :class:`Meetings`, and the communicator of each."""
    count, ranks = len(node), start.shape[1]
    shape = (count, ranks)
    last = np.full(count, -np.inf)
    first_of = np.zeros(count, np.int64)  # row of `part` that holds the meeting's members
    number = -1
    before = -1
    for at in range(count):
        if node[at] != before:
            number += 1
            while part[number].max() < at:
                number += 1
            before = node[at]
        first_of[at] = number
        for rank in range(ranks):
            if part[number, rank] == at:
                last[at] = max(last[at], end[node[at], rank])
    order = np.argsort(last, kind="mergesort")
    member = np.zeros(shape, np.bool_)
    arrival, release, elapsed = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    previous = np.empty(shape, np.int64)
    transfer = np.zeros(count)
    latest = np.full(ranks, -1, np.int64)
    released = np.zeros(ranks)
    for at in range(count):
        one = order[at]
        last_arrival = -np.inf
        for rank in range(ranks):
            previous[at, rank] = latest[rank]
            if part[first_of[one], rank] == one:
                member[at, rank] = True
                arrival[at, rank] = start[node[one], rank]
                release[at, rank] = end[node[one], rank]
                elapsed[at, rank] = max(arrival[at, rank] - released[rank], 0.0)
                last_arrival = max(last_arrival, arrival[at, rank])
                latest[rank], released[rank] = at, release[at, rank]
        transfer[at] = max(last[one] - last_arrival, 0.0)
    return node[order], group[order], member, arrival, release, previous, elapsed, transfer
