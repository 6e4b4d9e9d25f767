"""What is usual of work that comes in ever other amounts: times by how much there was to do.

Prompts are of any length and replicas have batches of their own, so that few steps launch the
same grids as another, and :mod:`kat_otel.ttad.history` has nothing to say of them. But they run
the same kernels in the same order, and how much each rank has to do shows in its grids: its
*load* is their geometric mean. A time is compared with those of the loads nearest to it, of all
steps and ranks remembered, if they lie around it. Bounded like the other history; a step with an
incident is never remembered here either.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.per_string import PerString
from kat_otel.spans import SpanTable
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.features import Features
from kat_otel.ttad.history import Expectation
from kat_otel.ttad.meetings import Meetings

__all__ = ["LoadHistory", "load_of"]

Float = NDArray[np.float64]

_MOST_SHAPES: Final = 4
_MOST_CELLS: Final = 4_000_000
"""Numbers held per shape: 32 MB."""

_NEAREST: Final = 15
"""Loads whose times are looked at."""
_FEWEST: Final = 5
_NEAR: Final = 0.05
"""Their loads differ from the one in question by this share at most."""
_AROUND: Final = 0.02
"""And in the middle by this one."""

_MILLIONTHS: Final = 1e6


def _volume(text: str) -> int:
    """Logarithm of the blocks of a launch grid such as ``12,1,1``, in millionths; -1 if none."""
    sides = text.strip("[]() ").replace("x", ",").split(",")
    try:
        blocks = float(np.prod([float(side) for side in sides]))
    except ValueError:
        return -1
    return round(_MILLIONTHS * float(np.log(blocks))) if blocks >= 1 else -1


_VOLUMES: Final = PerString(_volume)


def load_of(table: SpanTable, alignment: Alignment, local: NDArray[np.bool_]) -> Float | None:
    """Returns the logarithm of each rank's load, ``(R,)``; None where launches say no grids.

    Args:
        table: spans of one step.
        alignment: of the step.
        local: nodes that are a rank's own work, ``(N,)``.
    """
    nodes = np.flatnonzero(local & (alignment.rows >= 0).all(axis=1))
    if not len(nodes) or not alignment.rows.shape[1]:
        return None
    blocks = _VOLUMES.of(table.strings, table.grid[alignment.rows[nodes]])
    told = (blocks >= 0).all(axis=1)
    if 2 * np.count_nonzero(told) < len(nodes):
        return None
    return np.asarray(blocks[told].mean(axis=0) / _MILLIONTHS, np.float64)


@dataclass(slots=True)
class _Shape:
    """Remembered steps of the same kernels in the same order: rings of ``limit`` of them.

    Attributes:
        limit: steps held at most.
        durations: ns ``(limit, N, R)``, 0 where a rank lacks the node.
        transfers: ns ``(limit, N)``.
        loads: logarithms, ``(limit, R)``.
        count: steps ever remembered.
    """

    limit: int
    durations: Float
    transfers: Float
    loads: Float
    count: int = 0


class LoadHistory:
    """Healthy steps of one instance, by their loads.

    Args:
        steps: remembered of each shape at most.
    """

    def __init__(self, steps: int) -> None:
        self._limit = steps
        self._shapes: OrderedDict[tuple[bytes, ...], _Shape] = OrderedDict()

    def remember(
        self, alignment: Alignment, features: Features, met: Meetings, load: Float
    ) -> None:
        """Adds a healthy step; the least recently used shape is forgotten first."""
        key = (*alignment.sequence(), alignment.ranks.tobytes())
        shape = self._shapes.get(key)
        nodes, ranks = features.duration.shape
        if shape is None:
            size = max(1, min(self._limit, _MOST_CELLS // max(nodes * ranks, 1)))
            shape = _Shape(
                size,
                np.empty((size, nodes, ranks)),  # memory is taken as the steps come
                np.zeros((size, nodes)),
                np.empty((size, ranks)),
            )
            self._shapes[key] = shape
        self._shapes.move_to_end(key)
        while len(self._shapes) > _MOST_SHAPES:
            self._shapes.popitem(last=False)
        at = shape.count % shape.limit
        shape.durations[at] = features.duration * features.present
        shape.transfers[at] = 0.0
        shape.transfers[at, met.node] = met.transfer
        shape.loads[at] = load
        shape.count += 1

    def expect(self, alignment: Alignment, load: Float, *, least: int) -> Expectation | None:
        """Returns what is usual for these nodes under such loads; 0 where unknown.

        Args:
            alignment: of the step in question.
            load: of its ranks, logarithms ``(R,)``.
            least: healthy steps from which anything is expected.
        """
        shape = self._shapes.get((*alignment.sequence(), alignment.ranks.tobytes()))
        if shape is None or shape.count < least:
            return None
        held = min(shape.count, shape.limit)
        loads = shape.loads[:held]
        nodes, ranks = shape.durations.shape[1:]
        durations, transfers = np.zeros((1, nodes, ranks)), np.zeros((1, nodes))
        for rank in range(ranks):
            near = _nearest(loads.reshape(-1), float(load[rank]))
            if len(near):
                step, other = np.divmod(near, ranks)
                durations[0, :, rank] = _known_median(shape.durations[step, :, other])
        near = _nearest(loads.mean(axis=1), float(load.mean()))
        if len(near):
            transfers[0] = _known_median(shape.transfers[near])
        return Expectation(durations, transfers, held)


def _nearest(loads: Float, load: float) -> NDArray[np.int64]:
    """Places of the loads that lie nearest around one; none if too few do."""
    apart = np.abs(loads - load)
    count = min(_NEAREST, len(loads))
    near = np.argpartition(apart, count - 1)[:count]
    near = near[apart[near] <= _NEAR]
    if len(near) < _FEWEST or abs(float(np.median(loads[near])) - load) > _AROUND:
        return np.empty(0, np.int64)
    return np.sort(near)


def _known_median(values: Float) -> Float:
    """Median over the first axis of what is known (positive); 0 where less than half is."""
    known = values > 0
    count = known.sum(axis=0)
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    pick = np.maximum(count // 2, 0)
    middle = np.take_along_axis(ordered, np.minimum(pick, len(values) - 1)[None], axis=0)[0]
    return np.where(2 * count > len(values), middle, 0.0)
