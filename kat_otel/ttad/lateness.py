"""Who arrives late at the meetings, by how much, and is it more than chance.

Each stretch of work is compared with the leave-one-out median of the peers on the clock that
applies to it (:mod:`kat_otel.ttad.anchors`). The scale comes from stretches of the same kind
(the layers of a model), and only where there are none of them from the peers at this one
meeting. With few peers a systematic difference must not become its own scale: within a kind,
each rank's own median is taken off before the scale is estimated. At a rank's first meeting
nothing is known of the stretch; there the gap to the next arrival is judged by the scale of
all other stretches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import njit
from kat_otel.ttad import loops
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.anchors import Anchors
from kat_otel.ttad.backend import run
from kat_otel.ttad.features import Features
from kat_otel.ttad.loops import median, median_of, plain
from kat_otel.ttad.meetings import Meetings
from kat_otel.ttad.robust import (
    MAD_TO_SIGMA,
    combine_p,
    leave_one_out_median,
    masked_median,
    pooled_scale,
    t_tail,
)
from kat_otel.ttad.settings import Settings

__all__ = ["Lateness", "entry_gap", "lateness"]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Kinds = tuple[NDArray[np.int64], int]

_CLUSTER = 0.25
"""Ranks within this share of the last arriver's lateness arrive together with it."""

_MIN_GAPS = 16
"""Fewest gaps or stretches that give a scale for first meetings."""

_MIN_EMPIRICAL = 200
"""Fewest deviations of other ranks that serve as the null distribution."""

_ENTRY_VALUES = 9
"""All that runs on a host moves a step's start: its scale is trusted like one of so few values."""

_MAD_EFFICIENCY = 0.37
"""A median absolute deviation of n values is as sure as a standard deviation of 0.37 n."""

_LENT = 10
"""Residuals' worth of weight that a meeting's own scale borrows from all meetings."""

_NORMAL = 1000.0
"""Degrees of freedom from which Student's t is the normal."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """Lateness at every meeting; arrays ``(C, R)``.

    Attributes:
        excess: own stretch minus that of the peers (ns).
        expected: elapsed time since the release had the stretch been as usual (ns).
        z: excess in standard deviations.
        last: the rank belongs to the last to arrive, whom the others wait for.
        counts: an excess here makes others wait: any on the host's clock, which the rank
            carries along, and on the GPU's clock that of the last to arrive.
        cell_p: chance of one such excess without a cause.
        rank_z: all meetings of a rank combined (Fisher), as a normal deviate, ``(R,)``.
        rank_p: chance of it, ``(R,)``.
        judged: cells that have peers and a scale.
    """

    excess: Float
    expected: Float
    z: Float
    last: Bool
    counts: Bool
    cell_p: Float
    rank_z: Float
    rank_p: Float
    judged: Bool


def lateness(
    met: Meetings,
    bound: Anchors,
    alignment: Alignment,
    features: Features,
    settings: Settings,
    *,
    gaps: Sequence[float] = (),
    xp: Any,
) -> Lateness:
    """Judges all arrivals of one step; the statistics run on ``xp``'s device.

    Args:
        met: the meetings.
        bound: what bound their arrivals.
        alignment: for the peers and the kinds of stretches.
        features: for the clock's resolution.
        settings: thresholds.
        gaps: :func:`entry_gap` of earlier steps, ns.
        xp: array namespace.
    """
    kind = _stretch_kinds(met, alignment)
    by_gpu = met.member & ~bound.host & ~bound.entry
    by_host = met.member & (bound.other > 0)
    gpu = _Clock.of(met.elapsed, by_gpu, alignment, kind, settings, xp=xp)
    host = gpu  # where nothing is measured by the host's clock, nothing is asked of it
    if bound.host.any():
        host = _Clock.of(bound.other, by_host, alignment, kind, settings, xp=xp)
    cells = _Cells(
        excess=np.where(bound.host, host.excess, np.where(by_gpu, gpu.excess, 0.0)),
        sigma=np.where(bound.host, host.sigma, gpu.sigma),
        freedom=np.where(bound.host, host.freedom, gpu.freedom),
        judged=np.where(bound.host, host.judged, gpu.judged & by_gpu),
        last=_last_arrivers(met),
    )
    _judge_entries(met, bound, cells, gaps)
    excess, judged, last = cells.excess, cells.judged, cells.last
    stretch = np.where(bound.host, bound.other, met.elapsed)
    floor = np.hypot(
        features.resolution_ns + settings.jitter_ns,
        settings.relative_jitter * np.maximum(stretch - excess, 0.0) * ~bound.entry,
    )
    z, cell_p = np.zeros(excess.shape), np.ones(excess.shape)
    # meetings of few ranks leave most cells empty: only those that are judged are looked at
    sigma = np.hypot(cells.sigma[judged], floor[judged])
    z[judged] = excess[judged] / sigma
    # a scale of few residuals is itself loose, and a median deviation more than a mean one
    freedom = np.clip(_MAD_EFFICIENCY * (cells.freedom[judged] - 1.0), 2.0, settings.tail_freedom)
    (cell_p[judged],) = run(t_tail, z[judged], freedom, xp=xp)
    combined = np.maximum(cell_p, _empirical_p(z, judged))
    (rank_z,) = run(combine_p, combined, judged, xp=xp)
    (rank_p,) = run(t_tail, rank_z, _NORMAL, xp=xp)
    return Lateness(
        excess=excess,
        expected=np.maximum(met.elapsed - excess, 0.0),
        z=z,
        last=last,
        counts=judged & (excess > 0) & (bound.host | last),
        cell_p=cell_p,
        rank_z=rank_z,
        rank_p=rank_p,
        judged=judged,
    )


@dataclass(frozen=True, slots=True)
class _Cells:
    """Excess of every arrival and the scale it is judged by, ``(C, R)``."""

    excess: Float
    sigma: Float
    freedom: Float
    judged: Bool
    last: Bool


@dataclass(frozen=True, slots=True)
class _Clock:
    """Stretches measured by one clock against peers measured by the same, ``(C, R)``."""

    excess: Float
    sigma: Float
    freedom: Float
    judged: Bool

    @staticmethod
    def of(
        stretch: Float,
        mask: Bool,
        alignment: Alignment,
        kind: Kinds,
        settings: Settings,
        *,
        xp: Any,
    ) -> _Clock:
        excess, compared = _residuals(stretch, mask, alignment.peers, xp=xp)
        sigma, freedom = _scales(excess, compared, *kind, settings, xp=xp)
        judged = compared & (sigma > 0)[:, None]
        return _Clock(
            excess,
            np.broadcast_to(sigma[:, None], excess.shape),
            np.broadcast_to(freedom[:, None].astype(np.float64), excess.shape),
            judged,
        )


def _empirical_p(z: Float, judged: Bool) -> Float:
    """Share of the other ranks' deviations that are as large, ``(C, R)``; 0 where they are few.

    Launch gaps are skewed to the right, more than Student's t allows; over many cells the other
    ranks of the same step say how often such a deviation comes without a cause.
    """
    return _shares(z, plain(judged), _MIN_EMPIRICAL)


@njit("float64[:, ::1](float64[:, ::1], boolean[:, ::1], int64)")
def _shares(z: Any, judged: Any, fewest: int) -> Any:
    """Counts among everybody's deviations, less one's own."""
    p = np.zeros(z.shape)
    everybody = np.sort(z.ravel()[judged.ravel()])
    for rank in range(z.shape[1]):
        own = np.sort(z[:, rank][judged[:, rank]])
        others = len(everybody) - len(own)
        if others < fewest:
            continue
        for row in range(z.shape[0]):
            if not judged[row, rank]:
                continue
            value = z[row, rank]
            above = len(everybody) - int(np.searchsorted(everybody, value))  # pyright: ignore[reportUnknownArgumentType]
            above -= len(own) - int(np.searchsorted(own, value))  # pyright: ignore[reportUnknownArgumentType]
            p[row, rank] = (above + 1) / (others + 1)
    return p


def _last_arrivers(met: Meetings) -> Bool:
    """Who arrives with the last: within a share of its distance from the middle arrival."""
    return _last(plain(met.member), plain(met.arrival), _CLUSTER)


@njit("boolean[:, ::1](boolean[:, ::1], float64[:, ::1], float64)", uses=(loops,))
def _last(member: Any, arrival: Any, cluster: float) -> Any:
    last = np.zeros(member.shape, np.bool_)
    own = np.empty(member.shape[1])
    for row in range(member.shape[0]):
        count, latest = 0, -np.inf
        for rank in range(member.shape[1]):
            if member[row, rank]:
                own[count] = arrival[row, rank]
                latest = max(latest, own[count])
                count += 1
        if count:
            middle = median(own, count)
            near = latest - cluster * (latest - middle)
            for rank in range(member.shape[1]):
                time = arrival[row, rank]
                last[row, rank] = member[row, rank] and time >= near and time > middle
    return last


def _judge_entries(met: Meetings, bound: Anchors, cells: _Cells, gaps: Sequence[float]) -> None:
    """Judges first meetings in place: the gap from the last arriver to the next.

    The scale is that of the same gap in earlier steps, else that of the host's stretches in
    this one (the GPU's own are much more regular than what starts a step).
    """
    hosts = np.abs(cells.excess[cells.judged & (bound.host | bound.synced)])
    usual = np.array(gaps, np.float64) if len(gaps) >= _MIN_GAPS else hosts
    if len(usual) < _MIN_GAPS:
        return
    scale = MAD_TO_SIGMA * float(median_of(usual))
    for meeting, final, gap in _entry_gaps(met, bound):
        cells.excess[meeting, final] = gap
        cells.sigma[meeting], cells.freedom[meeting] = scale, _ENTRY_VALUES
        cells.judged[meeting, final] = True
        cells.last[meeting] = False
        cells.last[meeting, final] = True


def entry_gap(met: Meetings, bound: Anchors) -> float | None:
    """Returns the largest gap (ns) between last and next arrival at the first meetings."""
    return max((gap for _, _, gap in _entry_gaps(met, bound)), default=None)


def _entry_gaps(met: Meetings, bound: Anchors) -> Iterator[tuple[int, int, float]]:
    """Meeting, column of the last arriver, and its gap to the next, for all first meetings."""
    for meeting in np.flatnonzero((bound.entry & met.member).any(axis=1)):
        member = met.member[meeting]
        if bound.entry[meeting][member].all():
            order = np.argsort(np.where(member, met.arrival[meeting], -np.inf))
            late, next_one = met.arrival[meeting, order[-1]], met.arrival[meeting, order[-2]]
            yield int(meeting), int(order[-1]), float(late - next_one)


def _stretch_kinds(met: Meetings, alignment: Alignment) -> Kinds:
    """Meetings whose preceding stretch is the same kind of work: (this, previous, distance)."""
    if not len(met.node):
        return np.empty(0, np.int64), 0
    before = met.previous.max(axis=1)
    node_before = np.where(before >= 0, met.node[np.maximum(before, 0)], -1)
    family_before = np.where(before >= 0, alignment.family[np.maximum(node_before, 0)], -1)
    distance = np.where(before >= 0, met.node - node_before, 0)
    families, nodes = len(alignment.families), len(alignment.family)
    # one number for the three, in the same order; 2^62 is far away, and not checked in vain
    if families * (families + 1) * (2 * nodes + 1) < 1 << 62:
        keys = alignment.family[met.node].astype(np.int64) * (families + 1) + family_before + 1
        return _numbered((keys * (2 * nodes + 1) + distance + nodes).tobytes())
    rows = np.stack([alignment.family[met.node], family_before, distance], axis=1)
    _, kind = np.unique(rows, axis=0, return_inverse=True)
    return kind.reshape(-1).astype(np.int64), int(kind.max()) + 1


@lru_cache(maxsize=16)  # steps of the same work follow each other
def _numbered(keys: bytes) -> Kinds:
    _, kind = np.unique(np.frombuffer(keys, np.int64), return_inverse=True)
    return kind.reshape(-1).astype(np.int64), int(kind.max()) + 1


def _residuals(
    stretch: Float, mask: Bool, peers: NDArray[np.int32], *, xp: Any
) -> tuple[Float, Bool]:
    """Each stretch minus the leave-one-out median of its peers, and whether it has any."""
    if len(peers) and (peers == peers[0]).all():
        expected, others = run(leave_one_out_median, stretch, mask, xp=xp)
        compared = mask & (others > 0)
        return np.where(compared, stretch - expected, 0.0), compared
    expected = np.zeros_like(stretch)
    compared = np.zeros_like(mask)
    for one in np.unique(peers):
        columns = np.flatnonzero(peers == one)
        expected[:, columns], others = run(
            leave_one_out_median, stretch[:, columns], mask[:, columns], xp=xp
        )
        compared[:, columns] = mask[:, columns] & (others > 0)
    return np.where(compared, stretch - expected, 0.0), compared


def _scales(
    excess: Float,
    compared: Bool,
    kind: NDArray[np.int64],
    kinds: int,
    settings: Settings,
    *,
    xp: Any,
) -> tuple[Float, NDArray[np.int64]]:
    """Sigma of each meeting, ns ``(C,)`` (0: cannot be judged), and the residuals behind it."""
    if not kinds:
        return np.empty(0), np.empty(0, np.int64)
    repeats = np.bincount(kind, minlength=kinds)
    centre = np.zeros((kinds, excess.shape[1]))
    for one in np.flatnonzero(repeats >= settings.min_pool).tolist():
        chosen = kind == one
        centre[one], _ = run(masked_median, excess[chosen].T, compared[chosen].T, xp=xp)
    pooled, count = run(pooled_scale, excess - centre[kind], compared, kind, kinds, xp=xp)
    pooled, count = pooled[kind], count[kind]
    rows = compared.sum(axis=1)
    across, _ = run(masked_median, np.abs(excess) * MAD_TO_SIGMA, compared, xp=xp)
    everyone, total = run(pooled_scale, excess, compared, np.zeros_like(kind), 1, xp=xp)
    lent = min(_LENT, int(total[0]))  # eight residuals of one meeting may agree by chance
    across = np.sqrt((rows * across**2 + lent * everyone[0] ** 2) / np.maximum(rows + lent, 1))
    repeated = repeats[kind] >= settings.min_pool
    enough = rows >= settings.min_pool
    sigma = np.where(repeated, pooled, np.where(enough, across, 0.0))
    sigma = np.where((repeated | enough) & (sigma == 0), 1e-9, sigma)  # the floor takes over
    return sigma, np.where(repeated, count, rows + lent)
