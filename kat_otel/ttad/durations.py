"""Kernels that take longer than they should: against peers, against repeats, against history.

Expectation is, in this order of trust: the node's own history where there is enough of it,
the leave-one-out median over the peers, and on a single rank the median of the same kernel
with the same grid in the rank's other layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import Semantics
from kat_otel.spans import SpanKind, SpanTable
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.backend import run
from kat_otel.ttad.features import Features
from kat_otel.ttad.robust import leave_one_out_median, pooled_scale, t_tail
from kat_otel.ttad.settings import Settings

__all__ = ["Durations", "durations", "local_work"]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

_MANY = 100.0
"""Degrees of freedom of a sum over many kernels, which is nearly normal."""

_MIN_REPEATS = 10
"""Fewest layers from which a single rank's usual duration of a kernel is taken."""

_ONE_MODE = 1.25
"""The 90th percentile lies within this factor of the median, else there are several modes."""


@dataclass(frozen=True, slots=True)
class Durations:
    """How kernels compare with their expectation; arrays ``(N, R)``, ns.

    Attributes:
        expected: expected duration (0 where not judged).
        excess: duration minus expected.
        z: excess in standard deviations of the kernel.
        p: chance of it without a cause.
        judged: an expectation and a scale exist.
        rank_excess: share by which each rank's local kernels exceed expectation, ``(R,)``.
        rank_z: the same in standard deviations, ``(R,)``.
        rank_p: chance of it, ``(R,)``.
        breadth: share of a rank's kernel time in families that are slower by at least half of
            ``rank_excess``: near 1 if all are slower alike, ``(R,)``.
        sided: the excess has a side: with two peers and no history it has none.
    """

    expected: Float
    excess: Float
    z: Float
    p: Float
    judged: Bool
    rank_excess: Float
    rank_z: Float
    rank_p: Float
    breadth: Float
    sided: Bool


def local_work(features: Features, alignment: Alignment) -> Bool:
    """Nodes whose duration depends on their own rank alone, bool ``(N,)``."""
    own = (features.kind == SpanKind.KERNEL) | (features.kind == SpanKind.MEMCPY)
    return (alignment.semantics == Semantics.NONE) & own


def durations(
    table: SpanTable,
    features: Features,
    alignment: Alignment,
    history: Float | None,
    settings: Settings,
    *,
    xp: Any,
) -> Durations:
    """Judges the durations of one step's local kernels.

    Args:
        history: expected durations from earlier steps, ns ``(N, R)``, 0 where unknown.
    """
    shape = features.duration.shape
    local = local_work(features, alignment)
    usable = features.present & local[:, None]
    if table.grid.any():  # other launch shapes are other work: grid and block are covariates
        usable &= _same_shape(table, alignment)
    expected, others = np.zeros(shape), np.zeros(shape, np.int64)
    for one in np.unique(alignment.peers):
        columns = np.flatnonzero(alignment.peers == one)
        expected[:, columns], others[:, columns] = run(
            leave_one_out_median, features.duration[:, columns], usable[:, columns], xp=xp
        )
    sided = others >= 2
    if shape[1] == 1:
        expected, others = _repeats(table, alignment, features, usable[:, 0])
        sided = others >= settings.min_pool
    if history is not None:
        known = (history > 0) & usable
        expected = np.where(known, history, expected)
        others = np.where(known, np.maximum(others, 1), others)
        sided = sided | known
    usable &= others > 0
    excess = np.where(usable, features.duration - expected, 0.0)
    scale, enough = _scale(excess, usable, alignment, settings, xp=xp)
    floor = np.hypot(
        features.resolution_ns / 2 + settings.jitter_ns, settings.relative_jitter * expected
    )
    usable &= enough[:, None]
    z = np.where(usable, excess / np.hypot(scale[:, None], floor), 0.0)
    (p,) = run(t_tail, z, settings.tail_freedom, xp=xp)
    computing = usable & (features.kind == SpanKind.KERNEL)[:, None]
    quantum = (features.resolution_ns**2) / 6.0  # two ends, each rounded: variance of a difference
    rank_excess, rank_z, breadth = _ranks(
        excess, expected, scale**2 + quantum, computing, alignment.family
    )
    (rank_p,) = run(t_tail, rank_z, _MANY, xp=xp)
    return Durations(expected, excess, z, p, usable, rank_excess, rank_z, rank_p, breadth, sided)


def _same_shape(table: SpanTable, alignment: Alignment) -> Bool:
    """Spans whose grid and block equal those of most peers of the node."""
    rows = np.maximum(alignment.rows, 0)
    shape = table.grid[rows].astype(np.int64) * len(table.strings) + table.block[rows]
    shape = np.where(alignment.present, shape, -1)
    ordered = np.sort(shape, axis=1)
    count = (shape >= 0).sum(axis=1)
    first = shape.shape[1] - count  # the absent sort to the front
    middle = np.minimum(first + count // 2, shape.shape[1] - 1)
    usual = np.take_along_axis(ordered, middle[:, None], axis=1)
    return shape == usual


def _repeats(
    table: SpanTable, alignment: Alignment, features: Features, usable: Bool
) -> tuple[Float, NDArray[np.int64]]:
    """On one rank: leave-one-out median over the same kernel in the same place of a layer.

    The place is the kernel with its launch shape and its two neighbours on either side: the
    same GEMM kernel serves projections of different depth, which only the place tells apart.
    A place whose durations still have several modes is not judged.
    """
    duration = features.duration[:, 0]
    rows = alignment.rows[:, 0]
    keys = [table.name[rows], table.grid[rows], table.block[rows]]
    for shift in (-2, -1, 1, 2):
        same = np.roll(alignment.stream, shift) == alignment.stream
        keys.append(np.where(same, np.roll(table.name[rows], shift), -1))
    _, group = np.unique(np.stack(keys, axis=1), axis=0, return_inverse=True)
    group = np.where(usable, group.reshape(-1), -1)
    order = np.lexsort((duration, group))
    ids, first, count = np.unique(group[order], return_index=True, return_counts=True)
    start = np.zeros(int(group.max(initial=0)) + 2, np.int64)
    size = np.zeros_like(start)
    start[ids], size[ids] = first, count
    ordered = duration[order]
    high = ordered[np.minimum(start + (9 * np.maximum(size - 1, 0)) // 10, len(ordered) - 1)]
    middle = ordered[np.minimum(start + size // 2, len(ordered) - 1)]
    size = np.where((size >= _MIN_REPEATS) & (high <= _ONE_MODE * middle), size, 0)
    own = np.empty(len(order), np.int64)
    own[order] = np.arange(len(order))
    others = np.where(group >= 0, np.maximum(size[group] - 1, 0), 0)

    def pick(k: NDArray[np.int64]) -> Float:
        at = start[group] + k
        return ordered[np.clip(np.where(at >= own, at + 1, at), 0, len(order) - 1)]

    low, high = pick(np.maximum((others - 1) // 2, 0)), pick(others // 2)
    return np.where(others > 0, (low + high) / 2, 0.0)[:, None], others[:, None]


def _scale(
    excess: Float, usable: Bool, alignment: Alignment, settings: Settings, *, xp: Any
) -> tuple[Float, Bool]:
    """Sigma of each node, ns ``(N,)``: of its family, lent strength by kernels of like length."""
    family = alignment.family.astype(np.int64)
    families = max(len(alignment.families), 1)
    by_family, count = run(pooled_scale, excess, usable, family, families, xp=xp)
    everyone, total = run(pooled_scale, excess, usable, np.zeros_like(family), 1, xp=xp)
    by_family, count = by_family[family], count[family]
    weight = np.minimum(count, 50) / 50.0  # a family of few residuals leans on all kernels
    sigma = np.sqrt(weight * by_family**2 + (1 - weight) * np.maximum(by_family, everyone[0]) ** 2)
    return sigma, np.full(len(sigma), int(total[0]) >= settings.min_pool)


def _ranks(
    excess: Float,
    expected: Float,
    variance: Float,
    usable: Bool,
    family: NDArray[np.int32],
) -> tuple[Float, Float, Float]:
    base = np.where(usable, expected, 0.0).sum(axis=0)
    total = np.where(usable, excess, 0.0).sum(axis=0)
    share = np.where(base > 0, total / np.maximum(base, 1.0), 0.0)
    variance = np.where(usable, variance[:, None], 0.0).sum(axis=0)
    z = np.where(base > 0, total / np.sqrt(np.maximum(variance, 1.0)), 0.0)
    breadth = np.zeros(len(total))
    for column in range(len(total)):  # by family: single kernels are blurred by the clock
        mine = usable[:, column]
        of = family[mine]
        longer = np.bincount(of, excess[mine, column])
        usual = np.bincount(of, expected[mine, column])
        slower = longer >= 0.5 * share[column] * usual
        breadth[column] = usual[slower].sum() / max(float(base[column]), 1.0)
    return share, z, breadth
