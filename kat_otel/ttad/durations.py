"""Kernels that take longer than they should: against peers, against repeats, against history.

Expectation is, in this order of trust: the node's own history where there is enough of it,
the leave-one-out median over the peers, and on a single rank the median of the same kernel
with the same grid in the rank's other layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import njit
from kat_otel.kernels import Semantics
from kat_otel.spans import SpanKind, SpanTable
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.backend import run
from kat_otel.ttad.covariates import attention, own_batches, own_experts
from kat_otel.ttad.features import Features
from kat_otel.ttad.loops import plain
from kat_otel.ttad.robust import leave_one_out_median, pooled_scale, t_tail
from kat_otel.ttad.settings import Settings

__all__ = ["Durations", "durations", "local_work", "of_most", "totals"]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

_SHORT_NS = 5_000.0
_LONG_NS = 10_000.0
"""Kernels that take about as long as a launch takes, and those that take as long as their work."""

_ENOUGH = 20
"""Kernels of either sort from which their slowness is told."""

_TELLING = 0.04
"""Slowness of the long ones from which the short ones' is compared with it."""

_MANY = 100.0
"""Degrees of freedom of a sum over many kernels, which is nearly normal."""

_MIN_REPEATS = 10
"""Fewest layers from which a single rank's usual duration of a kernel is taken."""

_ONE_MODE = 1.25
"""The 90th percentile lies within this factor of the median, else there are several modes."""


@dataclass(frozen=True)
class Durations:
    """How kernels compare with their expectation; arrays ``(N, R)``, ns.

    What only a step with something in it needs (scales, chances) is worked out when asked for.

    Attributes:
        expected: expected duration (0 where not judged).
        excess: duration minus expected.
        judged: an expectation and a scale exist.
        sided: the excess has a side: with two peers and no history it has none.
        local: nodes whose duration depends on their own rank alone, ``(N,)``.
        unlike: of them those in which peers have different amounts to do, ``(N,)``.
    """

    expected: Float
    excess: Float
    judged: Bool
    sided: Bool
    local: Bool
    unlike: Bool
    _compared: Bool
    _features: Features
    _alignment: Alignment
    _settings: Settings
    _xp: Any

    def z(self, nodes: NDArray[np.int64], columns: NDArray[np.int64] | int) -> Float:
        """Returns the excess of some cells in standard deviations of their kernels."""
        settings = self._settings
        floor = np.hypot(
            self._features.resolution_ns / 2 + settings.jitter_ns,
            settings.relative_jitter * self.expected[nodes, columns],
        )
        z = self.excess[nodes, columns] / np.hypot(self._scale[nodes], floor)
        return np.where(self.judged[nodes, columns], z, 0.0)

    def p(self, z: Float) -> Float:
        """Returns the chance of such deviations without a cause."""
        (chance,) = run(t_tail, z, self._settings.tail_freedom, xp=self._xp)
        return chance

    @cached_property
    def rank_excess(self) -> Float:
        """Share by which each rank's local kernels exceed expectation, ``(R,)``."""
        base, total = self._sums
        return np.where(base > 0, total / np.maximum(base, 1.0), 0.0)

    @cached_property
    def rank_z(self) -> Float:
        """The same in standard deviations, ``(R,)``."""
        base, total = self._sums
        # two ends, each rounded: variance of a difference
        variance = self._scale**2 + self._features.resolution_ns**2 / 6.0
        variance = np.where(self._computing, variance[:, None], 0.0).sum(axis=0)
        return np.where(base > 0, total / np.sqrt(np.maximum(variance, 1.0)), 0.0)

    @cached_property
    def rank_p(self) -> Float:
        """The chance of it, ``(R,)``."""
        (chance,) = run(t_tail, self.rank_z, _MANY, xp=self._xp)
        return chance

    @cached_property
    def breadth(self) -> Float:
        """Share of a rank's kernel time in families that are slower by half of ``rank_excess``.

        Near 1 if all are slower alike, ``(R,)``. By family: single kernels are blurred by
        the clock.
        """
        base, _ = self._sums
        breadth = np.zeros(len(base))
        for column in range(len(breadth)):
            mine = self._computing[:, column]
            of = self._alignment.family[mine]
            longer = np.bincount(of, self.excess[mine, column])
            usual = np.bincount(of, self.expected[mine, column])
            slower = longer >= 0.5 * self.rank_excess[column] * usual
            breadth[column] = usual[slower].sum() / max(float(base[column]), 1.0)
        return breadth

    def short_slowness(self, column: int) -> float:
        """Slowness of a rank's short kernels as a share of its long ones'; NaN if not known."""
        mine = np.flatnonzero(self._computing[:, column])
        usual, longer = self.expected[mine, column], self.excess[mine, column]
        short, long = usual < _SHORT_NS, usual > _LONG_NS
        if min(int(short.sum()), int(long.sum())) < _ENOUGH:
            return np.nan
        of_long = float(np.median(longer[long] / usual[long]))
        of_short = float(np.median(longer[short] / usual[short]))
        return of_short / of_long if of_long > _TELLING else np.nan

    @cached_property
    def large(self) -> Bool:
        """Ranks with a kernel that exceeds its expectation by ``min_kernel_excess``, ``(R,)``."""
        return self._totals[2]

    @cached_property
    def _computing(self) -> Bool:
        return self.judged & self._kernel[:, None]

    @property
    def _kernel(self) -> Bool:
        return self._features.kind == SpanKind.KERNEL.value

    @cached_property
    def _totals(self) -> tuple[Float, Float, Bool]:
        return totals(
            self.judged,
            self._kernel,
            plain(self.expected),
            plain(self.excess),
            self._settings.min_kernel_excess,
        )

    @property
    def _sums(self) -> tuple[Float, Float]:
        return self._totals[:2]

    @cached_property
    def _scale(self) -> Float:
        """Sigma of each node, ns ``(N,)``: of its family, lent strength by all kernels."""
        family = self._alignment.family.astype(np.int64)
        families = max(len(self._alignment.families), 1)
        cells, xp = (self.excess, self._compared), self._xp
        by_family, count = run(pooled_scale, *cells, family, families, xp=xp)
        everyone, _ = run(pooled_scale, *cells, np.zeros_like(family), 1, xp=xp)
        by_family, count = by_family[family], count[family]
        weight = np.minimum(count, 50) / 50.0  # a family of few residuals leans on all kernels
        larger = np.maximum(by_family, everyone[0])
        return np.sqrt(weight * by_family**2 + (1 - weight) * larger**2)


@njit(
    "Tuple((float64[::1], float64[::1], boolean[::1]))"
    "(boolean[:, ::1], boolean[::1], float64[:, ::1], float64[:, ::1], float64)"
)
def totals(judged: Any, kernel: Any, expected: Any, excess: Any, least: float) -> Any:
    """By rank: what its kernels should take and what they take more, ns, and if one is large."""
    nodes, ranks = judged.shape
    base, total, large = np.zeros(ranks), np.zeros(ranks), np.zeros(ranks, np.bool_)
    for node in range(nodes):
        for rank in range(ranks):
            if judged[node, rank]:
                large[rank] |= excess[node, rank] >= least * expected[node, rank]
                if kernel[node]:
                    base[rank] += expected[node, rank]
                    total[rank] += excess[node, rank]
    return base, total, large


def local_work(features: Features, alignment: Alignment) -> Bool:
    """Nodes whose duration depends on their own rank alone, bool ``(N,)``."""
    own = (features.kind == SpanKind.KERNEL.value) | (features.kind == SpanKind.MEMCPY.value)
    return (alignment.semantics == Semantics.NONE.value) & own


def durations(
    table: SpanTable,
    features: Features,
    alignment: Alignment,
    history: Float | None,
    settings: Settings,
    *,
    by_load: Float | None = None,
    xp: Any,
) -> Durations:
    """Judges the durations of one step's local kernels.

    Args:
        history: expected durations from earlier steps, ns ``(N, R)``, 0 where unknown.
        by_load: the same by how much there is to do: for work that no peer has alike.
    """
    shape = features.duration.shape
    local = local_work(features, alignment)
    usable = features.present & local[:, None]
    experts = own_experts(table, alignment)
    usable &= ~experts[:, None]
    own = usable
    if table.grid.any():  # other launch shapes are other work: grid and block are covariates
        usable = usable & _same_shape(table, alignment)
    unlike = experts & local
    if own_batches(table, alignment):
        few = 2 * usable.sum(axis=1) < own.sum(axis=1) + (own.sum(axis=1) > 2)
        differ = local & (few | attention(table, alignment))
        usable &= ~differ[:, None]
        unlike |= differ | (local & (own & ~usable).any(axis=1))
        own = own & ~attention(table, alignment)[:, None]
    expected, others = _of_peers(features.duration, usable, alignment.peers, xp=xp)
    sided = others >= 2
    if shape[1] == 1:
        expected, others = _repeats(table, alignment, features, usable[:, 0])
        sided = others >= settings.min_pool
    if history is not None:
        known = (history > 0) & usable
        expected = np.where(known, history, expected)
        others = np.where(known, np.maximum(others, 1), others)
        sided = sided | known
    if by_load is not None:
        known = (by_load > 0) & own & ~(usable & (others > 0))
        expected = np.where(known, by_load, expected)
        others = np.where(known, 1, others)
        sided, usable = sided | known, usable | known
    usable &= others > 0
    excess = np.where(usable, features.duration - expected, 0.0)
    judged = usable if int(np.count_nonzero(usable)) >= settings.min_pool else usable & False
    return Durations(
        expected, excess, judged, sided, local, unlike, usable, features, alignment, settings, xp
    )


def _of_peers(
    duration: Float, usable: Bool, peers: NDArray[np.int32], *, xp: Any
) -> tuple[Float, NDArray[np.int64]]:
    """Leave-one-out median of each rank's peers, and how many they are, ``(N, R)``."""
    if len(peers) and (peers == peers[0]).all():
        expected, others = run(leave_one_out_median, duration, usable, xp=xp)
        return expected, others
    expected, others = np.zeros(duration.shape), np.zeros(duration.shape, np.int64)
    for one in np.unique(peers):
        columns = np.flatnonzero(peers == one)
        expected[:, columns], others[:, columns] = run(
            leave_one_out_median, duration[:, columns], usable[:, columns], xp=xp
        )
    return expected, others


def _same_shape(table: SpanTable, alignment: Alignment) -> Bool:
    """Spans whose grid and block equal those of most peers of the node."""
    shape = plain(table.grid), plain(table.block), len(table.strings)
    peers = alignment.peers
    if not len(peers) or (peers == peers[0]).all():
        return of_most(plain(alignment.rows), *shape)
    same: Bool = np.zeros(alignment.rows.shape, np.bool_)
    for one in np.unique(peers):
        columns = np.flatnonzero(peers == one)
        same[:, columns] = of_most(plain(alignment.rows[:, columns]), *shape)
    return same


@njit("boolean[:, ::1](int64[:, ::1], int32[::1], int32[::1], int64)")
def of_most(rows: Any, grid: Any, block: Any, strings: int) -> Any:
    """Which spans have the grid and block of most peers of their node, bool ``(N, R)``."""
    nodes, ranks = rows.shape
    same = np.zeros((nodes, ranks), np.bool_)
    own, shape = np.empty(ranks, np.int64), np.empty(ranks, np.int64)
    for node in range(nodes):
        count, alike = 0, True
        for rank in range(ranks):
            row = rows[node, rank]
            shape[rank] = -1
            if row >= 0:
                shape[rank] = np.int64(grid[row]) * strings + block[row]
                own[count] = shape[rank]
                alike &= own[count] == own[0]
                count += 1
        if count == 0:
            continue
        usual = own[0] if alike else np.sort(own[:count])[count // 2]
        for rank in range(ranks):
            same[node, rank] = shape[rank] == usual
    return same


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
