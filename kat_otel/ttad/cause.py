"""From a late arrival back to where the lateness began.

The walk follows what each node waited for, its stream's predecessor, its launch, or work on
another stream that ended just before, until it meets a node that waited for its launch (then
the host is late) or the release that all peers share. The lateness is split additively over
the kernels and copies that exceed their expectation; what remains lies where the walk ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import SpanKind
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.durations import Durations
from kat_otel.ttad.features import Features
from kat_otel.ttad.meetings import Meetings

__all__ = ["Walk", "walk_back"]

_SLACK_NS = 4_000.0
"""Successor starts within this of what it waited for: kernel-to-kernel gap plus launch jitter."""


@dataclass(slots=True)
class Walk:
    """Where the lateness of one rank at one or several meetings began, ns by share.

    Attributes:
        kernels: excess by node, of kernels on the path.
        copies: excess by node, of copies and memsets on the path.
        launch: lateness of launches: the host thread.
        unexplained: gaps that no record explains.
        launched_late: nodes whose launch was late.
    """

    kernels: dict[int, float] = field(default_factory=dict[int, float])
    copies: dict[int, float] = field(default_factory=dict[int, float])
    launch: float = 0.0
    unexplained: float = 0.0
    launched_late: list[int] = field(default_factory=list[int])

    def shares(self) -> dict[str, float]:
        """Returns the four sums by name."""
        return {
            "kernels": sum(self.kernels.values()),
            "copies": sum(self.copies.values()),
            "launch": self.launch,
            "unexplained": self.unexplained,
        }


@dataclass(frozen=True, slots=True)
class _Lane:
    """One rank's nodes with the orders that the walk needs."""

    nodes: NDArray[np.int64]
    by_end: NDArray[np.int64]
    ends: NDArray[np.float64]
    before: NDArray[np.int64]
    typical_delay: float


def walk_back(
    rank: int,
    cells: list[tuple[int, float]],
    met: Meetings,
    features: Features,
    alignment: Alignment,
    judged: Durations,
) -> Walk:
    """Walks back from the late arrivals of one rank.

    Args:
        rank: column of the rank.
        cells: (meeting, lateness in ns) pairs, a bounded number of them.
    """
    lane = _lane(rank, features, alignment)
    walk = Walk()
    for meeting, late in cells:
        before = int(met.previous[meeting, rank])
        since = float(met.release[before, rank]) if before >= 0 else -np.inf
        _walk_one(int(met.node[meeting]), rank, since, late, lane, features, judged, walk)
    return walk


def _lane(rank: int, features: Features, alignment: Alignment) -> _Lane:
    nodes = np.flatnonzero(features.present[:, rank])
    start = features.start[nodes, rank]
    order = nodes[np.lexsort((start, alignment.stream[nodes]))]
    before = np.full(features.present.shape[0], -1, np.int64)
    same = alignment.stream[order][1:] == alignment.stream[order][:-1]
    before[order[1:][same]] = order[:-1][same]
    by_end = nodes[np.argsort(features.end[nodes, rank], kind="stable")]
    launched = nodes[features.launched[nodes, rank]]
    delay = features.start[launched, rank] - features.launch[launched, rank]
    # a launch onto an idle stream: the low tenth of the delays, and never below zero
    typical = float(np.quantile(np.maximum(delay, 0.0), 0.1)) if len(launched) else 0.0
    return _Lane(nodes, by_end, features.end[by_end, rank], before, typical)


def _walk_one(
    node: int,
    rank: int,
    since: float,
    late: float,
    lane: _Lane,
    features: Features,
    judged: Durations,
    walk: Walk,
) -> None:
    slack = _SLACK_NS + 2 * features.resolution_ns
    left = late
    for _ in range(len(lane.nodes)):
        start = float(features.start[node, rank])
        if start <= since + slack:
            break
        ready = -np.inf
        if features.launched[node, rank]:
            ready = float(features.launch[node, rank]) + lane.typical_delay
        on_stream = int(lane.before[node])
        stream_end = float(features.end[on_stream, rank]) if on_stream >= 0 else -np.inf
        at = int(np.searchsorted(lane.ends, start + features.resolution_ns, side="right")) - 1
        other = int(lane.by_end[at]) if at >= 0 else -1
        if other == node and at > 0:
            other = int(lane.by_end[at - 1])
        other_end = float(features.end[other, rank]) if other >= 0 else -np.inf
        if stream_end >= start - slack and stream_end >= ready - slack:
            follow, end = on_stream, stream_end
        elif ready >= start - slack and ready > other_end - slack:
            walk.launch += left
            walk.launched_late.append(node)
            return
        elif other >= 0 and other_end >= start - slack:
            follow, end = other, other_end
        elif features.launched[node, rank] and ready >= max(stream_end, other_end):
            walk.launch += left  # nothing else was pending: a slow way from launch to GPU
            walk.launched_late.append(node)
            return
        else:
            follow, end = (
                (on_stream, stream_end) if stream_end >= other_end else (other, other_end)
            )
        if follow < 0 or follow == node or end <= since:
            break
        node = follow
        kind = features.kind[node]
        excess = float(judged.excess[node, rank])
        if kind == SpanKind.KERNEL and excess != 0:
            walk.kernels[node] = walk.kernels.get(node, 0.0) + excess
            left -= excess
        elif kind in (SpanKind.MEMCPY, SpanKind.MEMSET):
            walk.copies[node] = walk.copies.get(node, 0.0) + excess
            left -= excess
    walk.unexplained += left
