"""Per aligned node and rank: start, end, duration and launch, in one clock.

Dense float64 arrays relative to a common origin, so that nanoseconds stay exact for
104 days and the device needs no int64 arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import SpanKind, SpanTable
from kat_otel.ttad.align import Alignment

__all__ = ["Features", "features", "shift_clocks"]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Features:
    """What is measured of every node; all arrays ``(N, R)``, times in ns since ``origin_ns``.

    Attributes:
        present: the rank has the node.
        start, end, duration: of the GPU work.
        launched: a launch record is known.
        launch: start of the launch call.
        kind: SpanKind of each node, uint8 ``(N,)``.
        begin: start of each rank's worker step, ``(R,)``.
        finish: end of each rank's worker step, ``(R,)``.
        origin_ns: Unix ns.
        resolution_ns: coarsest clock among the ranks.
    """

    present: Bool
    start: Float
    end: Float
    duration: Float
    launched: Bool
    launch: Float
    kind: NDArray[np.uint8]
    begin: Float
    finish: Float
    origin_ns: int
    resolution_ns: int

    @property
    def longest_ns(self) -> float:
        """Length of the longest worker step (ns)."""
        return float((self.finish - self.begin).max(initial=0.0))


def features(table: SpanTable, alignment: Alignment) -> Features:
    """Gathers the columns of ``table`` into dense arrays."""
    present = alignment.present
    rows = np.where(present, alignment.rows, 0)
    origin = int(table.start_ns.min()) if len(table) else 0
    start = np.where(present, table.start_ns[rows] - origin, 0).astype(np.float64)
    duration = np.where(present, table.duration_ns[rows], 0).astype(np.float64)
    parent = table.parent[rows]
    launched = present & (parent >= 0) & (table.kind[parent] == SpanKind.LAUNCH)
    launch = np.where(launched, table.start_ns[parent] - origin, 0).astype(np.float64)
    some = alignment.rows.max(axis=1, initial=0)
    begin, finish = _worker_steps(table, alignment, origin)
    return Features(
        present=present,
        start=start,
        end=start + duration,
        duration=duration,
        launched=launched,
        launch=launch,
        kind=table.kind[some],
        begin=begin,
        finish=finish,
        origin_ns=origin,
        resolution_ns=max((r.resolution_ns for r in table.resources), default=1),
    )


def shift_clocks(features: Features, offset_ns: Float) -> Features:
    """Returns the features with ``offset_ns`` ``(R,)`` taken off each rank's times."""
    return replace(
        features,
        start=features.start - offset_ns,
        end=features.end - offset_ns,
        launch=features.launch - offset_ns,
        begin=features.begin - offset_ns,
        finish=features.finish - offset_ns,
    )


def _worker_steps(table: SpanTable, alignment: Alignment, origin: int) -> tuple[Float, Float]:
    """First start and last end of everything a rank did in the step."""
    ranks = table.rank
    who = np.searchsorted(alignment.ranks, ranks)
    known = np.isin(ranks, alignment.ranks)  # a rank without GPU work is not aligned
    begin = np.full(len(alignment.ranks), np.inf)
    finish = np.full(len(alignment.ranks), -np.inf)
    np.minimum.at(begin, who[known], (table.start_ns[known] - origin).astype(np.float64))
    np.maximum.at(finish, who[known], (table.end_ns[known] - origin).astype(np.float64))
    return begin, finish
