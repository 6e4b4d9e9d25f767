"""Who arrives late at the meetings, by how much, and is it more than chance.

From one release to the next arrival every peer does the same work. The elapsed time of a
rank is compared with the leave-one-out median of its peers; the scale comes from stretches
of the same kind (the layers of a model), and only where there are none of them from the
peers at this one meeting. With few peers a systematic difference must not become its own
scale: within a kind, each rank's own median is taken off before the scale is estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.ttad.align import Alignment
from kat_otel.ttad.backend import run
from kat_otel.ttad.features import Features
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

__all__ = ["Lateness", "lateness"]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

_CLUSTER = 0.25
"""Ranks within this share of the last arriver's lateness arrive together with it."""

_NORMAL = 1000.0
"""Degrees of freedom from which Student's t is the normal."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """Lateness at every meeting; arrays ``(C, R)``.

    Attributes:
        expected: elapsed time of the peers (ns).
        excess: own elapsed minus expected (ns).
        z: excess in standard deviations.
        last: the rank belongs to the last to arrive, whom the others wait for.
        cell_p: chance of one such excess without a cause.
        rank_z: all meetings of a rank combined (Fisher), as a normal deviate, ``(R,)``.
        rank_p: chance of it, ``(R,)``.
        judged: meetings that have a scale, bool ``(C,)``.
    """

    expected: Float
    excess: Float
    z: Float
    last: Bool
    cell_p: Float
    rank_z: Float
    rank_p: Float
    judged: Bool


def lateness(
    met: Meetings, alignment: Alignment, features: Features, settings: Settings, *, xp: Any
) -> Lateness:
    """Judges all arrivals of one step; the arithmetic runs on ``xp``'s device."""
    kind, kinds = _stretch_kinds(met, alignment)
    excess, expected = _residuals(met.elapsed, met.member, alignment.peers, xp=xp)
    compared = met.member & _has_peers(met.member, alignment.peers)
    sigma, freedom = _scales(excess, compared, kind, kinds, settings, xp=xp)
    floor = np.hypot(
        features.resolution_ns + settings.jitter_ns, settings.relative_jitter * expected
    )
    judged = sigma > 0
    sigma = np.hypot(sigma[:, None], floor)
    z = np.where(compared & judged[:, None], excess / sigma, 0.0)
    arrived = np.where(met.member, excess, -np.inf)
    latest = arrived.max(axis=1, keepdims=True, initial=-np.inf)
    last = met.member & (excess >= (1 - _CLUSTER) * latest) & (excess > 0)
    freedom = np.clip(freedom - 1.0, 2.0, settings.tail_freedom)  # a scale of few is itself loose
    (cell_p,) = run(t_tail, z, freedom[:, None], xp=xp)
    usable = compared & judged[:, None]
    (rank_z,) = run(combine_p, cell_p, usable, xp=xp)
    (rank_p,) = run(t_tail, rank_z, _NORMAL, xp=xp)
    return Lateness(expected, excess, z, last, cell_p, rank_z, rank_p, judged)


def _stretch_kinds(met: Meetings, alignment: Alignment) -> tuple[NDArray[np.int64], int]:
    """Meetings whose preceding stretch is the same kind of work: (this, previous, distance)."""
    if not len(met.node):
        return np.empty(0, np.int64), 0
    before = met.previous.max(axis=1)
    node_before = np.where(before >= 0, met.node[np.maximum(before, 0)], -1)
    family_before = np.where(before >= 0, alignment.family[np.maximum(node_before, 0)], -1)
    distance = np.where(before >= 0, met.node - node_before, 0)
    keys = np.stack([alignment.family[met.node], family_before, distance], axis=1)
    _, kind = np.unique(keys, axis=0, return_inverse=True)
    return kind.reshape(-1).astype(np.int64), int(kind.max()) + 1


def _residuals(
    elapsed: Float, member: Bool, peers: NDArray[np.int32], *, xp: Any
) -> tuple[Float, Float]:
    expected = np.zeros_like(elapsed)
    for one in np.unique(peers):
        columns = np.flatnonzero(peers == one)
        median, others = run(leave_one_out_median, elapsed[:, columns], member[:, columns], xp=xp)
        expected[:, columns] = np.where(others > 0, median, elapsed[:, columns])
    return np.where(member, elapsed - expected, 0.0), expected


def _has_peers(member: Bool, peers: NDArray[np.int32]) -> Bool:
    counts = np.zeros(member.shape, dtype=np.int64)
    for one in np.unique(peers):
        columns = np.flatnonzero(peers == one)
        counts[:, columns] = member[:, columns].sum(axis=1, keepdims=True)
    return counts > 1


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
    repeated = repeats[kind] >= settings.min_pool
    enough = rows >= settings.min_pool
    sigma = np.where(repeated, pooled, np.where(enough, across, 0.0))
    sigma = np.where((repeated | enough) & (sigma == 0), 1e-9, sigma)  # the floor takes over
    return sigma, np.where(repeated, count, rows)
