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
from kat_otel.ttad.anchors import SLACK_NS, before_on_stream, idle_launch_delay_ns
from kat_otel.ttad.features import Features
from kat_otel.ttad.judged import Judged

__all__ = ["Walk", "walk_back"]


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


def walk_back(column: int, cells: list[tuple[int, float]], judged: Judged) -> Walk:
    """Walks back from the late arrivals of one rank.

    Args:
        column: of the rank.
        cells: (meeting, lateness in ns) pairs, a bounded number of them.
        judged: the step.
    """
    met = judged.meetings
    lane = _lane(column, judged.features, judged.alignment)
    walk = Walk()
    for meeting, late in cells:
        if judged.anchors.host[meeting, column]:  # the host's own clock measured it
            walk.launch += late
            walk.launched_late.append(int(met.node[meeting]))
            continue
        before = int(met.previous[meeting, column])
        since = float(met.release[before, column]) if before >= 0 else -np.inf
        _Step(judged, column, lane, since).walk(int(met.node[meeting]), late, walk)
    return walk


def _lane(rank: int, features: Features, alignment: Alignment) -> _Lane:
    nodes = np.flatnonzero(features.present[:, rank])
    before = before_on_stream(features, alignment, rank)
    by_end = nodes[np.argsort(features.end[nodes, rank], kind="stable")]
    typical = idle_launch_delay_ns(features, rank)
    return _Lane(nodes, by_end, features.end[by_end, rank], before, typical)


@dataclass(frozen=True, slots=True)
class _Step:
    """The walk of one rank back to one release."""

    judged: Judged
    column: int
    lane: _Lane
    since: float

    def walk(self, node: int, late: float, into: Walk) -> None:
        """Splits ``late`` ns over what lies between ``node`` and the release."""
        features, work = self.judged.features, self.judged.durations
        slack = SLACK_NS + 2 * features.resolution_ns
        left = late
        for _ in range(len(self.lane.nodes)):
            start = float(features.start[node, self.column])
            if start <= self.since + slack:
                break
            before, end, host = self._waited_for(node, start, slack)
            if host:
                into.launch += left
                into.launched_late.append(node)
                return
            if before < 0 or before == node or end <= self.since:
                break
            node = before
            excess = float(work.excess[node, self.column])
            if features.kind[node] == SpanKind.KERNEL and excess != 0:
                into.kernels[node] = into.kernels.get(node, 0.0) + excess
                left -= excess
            elif features.kind[node] in (SpanKind.MEMCPY, SpanKind.MEMSET):
                into.copies[node] = into.copies.get(node, 0.0) + excess
                left -= excess
        into.unexplained += left

    def _waited_for(self, node: int, start: float, slack: float) -> tuple[int, float, bool]:
        """What held the node back: (node before, its end, False) or the host (-1, -inf, True)."""
        features, lane = self.judged.features, self.lane
        ready = -np.inf
        if features.launched[node, self.column]:
            ready = float(features.launch[node, self.column]) + lane.typical_delay
        stream = int(lane.before[node])
        stream_end = float(features.end[stream, self.column]) if stream >= 0 else -np.inf
        other, other_end = self._ended_before(node, start)
        if stream_end >= start - slack and stream_end >= ready - slack:
            return stream, stream_end, False
        if ready >= start - slack and ready > other_end - slack:
            return -1, -np.inf, True
        if other_end >= start - slack:
            return other, other_end, False
        if ready >= max(stream_end, other_end):  # a slow way from launch to GPU, nothing else
            return -1, -np.inf, True
        return (stream, stream_end, False) if stream_end >= other_end else (other, other_end, False)

    def _ended_before(self, node: int, start: float) -> tuple[int, float]:
        """The last work of the rank, on any stream, that ended before ``start``."""
        lane, resolution = self.lane, self.judged.features.resolution_ns
        at = int(np.searchsorted(lane.ends, start + resolution, side="right")) - 1
        if at >= 0 and int(lane.by_end[at]) == node:
            at -= 1
        return (int(lane.by_end[at]), float(lane.ends[at])) if at >= 0 else (-1, -np.inf)
