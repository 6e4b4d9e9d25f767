"""Collectives as meetings: who took part, when each arrived, when all were released.

The end of a barrier collective is one moment for all its members. That estimates the
offset between clocks, tells groups apart whose communicator is not known, and lets the
lateness of each stretch of work be measured from a common release.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import Semantics
from kat_otel.spans import SpanTable
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.features import Features
from kat_otel.verdict import Clock

__all__ = ["Meetings", "clock_offsets", "meetings"]

Float = NDArray[np.float64]

_COINCIDENCE_NS = 50_000.0
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
    return _COINCIDENCE_NS + 2 * features.resolution_ns


def clock_offsets(features: Features, alignment: Alignment) -> tuple[Float, Clock]:
    """Estimates each rank's clock offset from the ends of common barrier collectives.

    Returns:
        Offsets to take off, ns ``(R,)`` (zeros where none can be had), and the clock state.
    """
    ranks = len(alignment.ranks)
    none = np.zeros(ranks)
    common = (alignment.semantics != Semantics.NONE) & features.present.all(axis=1)
    if ranks < 2:
        return none, Clock(state="unaligned", max_offset_ns=0)
    if not common.any():
        return none, Clock(state="unaligned", max_offset_ns=0)
    ends = features.end[common]
    apart = ends - np.median(ends, axis=1, keepdims=True)
    offset = np.median(apart, axis=0)
    spread = np.median(np.abs(apart - offset), axis=0)
    tolerance = tolerance_ns(features)
    biggest = round(float(np.abs(offset).max()))
    if np.abs(offset).max() <= tolerance:
        return none, Clock(state="aligned", max_offset_ns=biggest)
    if common.sum() < _MIN_COMMON or spread.max() > tolerance:
        return none, Clock(state="unaligned", max_offset_ns=biggest)
    return offset, Clock(state="corrected", max_offset_ns=biggest)


def meetings(table: SpanTable, features: Features, alignment: Alignment) -> Meetings:
    """Finds the meetings of the step.

    Members of a collective node are one meeting if they name the same communicator; where
    no name is known, if their ends coincide. Collectives without a common end (one-sided,
    unequal pairs) are no meetings: their ranks are not compared by arrival.
    """
    nodes = np.flatnonzero(alignment.semantics != Semantics.NONE)
    members: list[NDArray[np.bool_]] = []
    which: list[int] = []
    names: list[str] = []
    tolerance = tolerance_ns(features)
    for node in nodes.tolist():  # one turn per collective, not per span
        here = np.flatnonzero(features.present[node])
        groups = table.group[alignment.rows[node, here]]
        for group in np.unique(groups).tolist():
            among = here[groups == group]
            ends = features.end[node, among]
            order = np.argsort(ends, kind="stable")
            breaks = np.flatnonzero(np.diff(ends[order]) > tolerance) + 1
            for part in np.split(among[order], breaks):
                if len(part) < 2:
                    continue
                member = np.zeros(features.present.shape[1], dtype=np.bool_)
                member[part] = True
                members.append(member)
                which.append(node)
                names.append(table.text(group))
    shape = (len(which), features.present.shape[1])
    node_of = np.array(which, dtype=np.int64)
    member = np.array(members, dtype=np.bool_).reshape(shape)
    release = np.where(member, features.end[node_of], 0.0)
    order = np.argsort(_last(release, member), kind="stable")
    sequence: list[int] = order.tolist()
    node_of, member, release = node_of[order], member[order], release[order]
    arrival = np.where(member, features.start[node_of], 0.0)
    at = np.where(member, np.arange(shape[0])[:, None], -1)
    latest = np.maximum.accumulate(at, axis=0) if shape[0] else at
    previous = np.vstack([np.full((1, shape[1]), -1), latest[:-1]]) if shape[0] else at
    released = np.take_along_axis(release, np.maximum(previous, 0), axis=0) if shape[0] else release
    since = np.where(previous >= 0, released, 0.0)
    return Meetings(
        node=node_of,
        member=member,
        arrival=arrival,
        release=release,
        previous=previous.astype(np.int64),
        elapsed=np.where(member, np.maximum(arrival - since, 0.0), 0.0),
        transfer=np.maximum(_last(release, member) - _last(arrival, member), 0.0),
        group=tuple(names[i] for i in sequence),
    )


def _last(times: Float, member: NDArray[np.bool_]) -> Float:
    return np.where(member, times, -np.inf).max(axis=1, initial=-np.inf)
