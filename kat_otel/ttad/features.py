"""Per aligned node and rank: start, end, duration and launch, in one clock.

Dense float64 arrays relative to a common origin, so that nanoseconds stay exact for
104 days and the device needs no int64 arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import njit
from kat_otel.spans import SpanTable
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.loops import plain

__all__ = ["Features", "features", "gather", "shift_clocks", "worker_steps"]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

_LAUNCH = 4  # SpanKind.LAUNCH, as a number for the loop


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
        shift: what was taken off each rank's clock, ns ``(R,)``.
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
    shift: Float

    @property
    def longest_ns(self) -> float:
        """Length of the longest worker step (ns)."""
        return float((self.finish - self.begin).max(initial=0.0))


def features(table: SpanTable, alignment: Alignment) -> Features:
    """Gathers the columns of ``table`` into dense arrays."""
    rows, kind = plain(alignment.rows), plain(table.kind)
    start_ns, duration_ns = plain(table.start_ns), plain(table.duration_ns)
    resource = plain(table.resource)
    origin = int(table.start_ns.min()) if len(table) else 0
    present, start, end, duration, launched, launch, node_kind = gather(
        rows, kind, start_ns, duration_ns, plain(table.parent), origin
    )
    column = {rank: at for at, rank in enumerate(alignment.ranks.tolist())}
    # a rank without GPU work is not aligned
    column_of = np.array([column.get(r.rank, -1) for r in table.resources], np.int64)
    begin, finish = worker_steps(
        resource, start_ns, duration_ns, column_of, len(alignment.ranks), origin
    )
    return Features(
        present=present,
        start=start,
        end=end,
        duration=duration,
        launched=launched,
        launch=launch,
        kind=node_kind,
        begin=begin,
        finish=finish,
        origin_ns=origin,
        resolution_ns=max((r.resolution_ns for r in table.resources), default=1),
        shift=np.zeros(len(begin)),
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
        shift=features.shift + offset_ns,
    )


@njit(
    "Tuple((boolean[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], boolean[:, ::1],"
    " float64[:, ::1], uint8[::1]))"
    "(int64[:, ::1], uint8[::1], int64[::1], int64[::1], int32[::1], int64)"
)
def gather(rows: Any, kind: Any, start_ns: Any, duration_ns: Any, parent: Any, origin: int) -> Any:
    """The arrays of :class:`Features` by node and rank, from present to launch, and kind."""
    shape = rows.shape
    present = np.zeros(shape, np.bool_)
    start, end, duration = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    launched, launch = np.zeros(shape, np.bool_), np.zeros(shape)
    node_kind = np.zeros(shape[0], np.uint8)
    for node in range(shape[0]):
        for rank in range(shape[1]):
            row = rows[node, rank]
            if row < 0:
                continue
            present[node, rank] = True
            node_kind[node] = kind[row]
            start[node, rank] = start_ns[row] - origin
            duration[node, rank] = duration_ns[row]
            end[node, rank] = start[node, rank] + duration[node, rank]
            caller = parent[row]
            if caller >= 0 and kind[caller] == _LAUNCH:
                launched[node, rank] = True
                launch[node, rank] = start_ns[caller] - origin
    return present, start, end, duration, launched, launch, node_kind


@njit("UniTuple(float64[::1], 2)(int32[::1], int64[::1], int64[::1], int64[::1], int64, int64)")
def worker_steps(
    resource: Any, start_ns: Any, duration_ns: Any, column_of: Any, ranks: int, origin: int
) -> Any:
    """First start and last end of everything a rank did in the step."""
    begin = np.full(ranks, np.inf)
    finish = np.full(ranks, -np.inf)
    for row in range(len(resource)):
        column = column_of[resource[row]]
        if column >= 0:
            start = start_ns[row] - origin
            begin[column] = min(begin[column], float(start))
            finish[column] = max(finish[column], float(start + duration_ns[row]))
    return begin, finish
