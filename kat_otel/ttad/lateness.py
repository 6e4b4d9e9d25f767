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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kat_otel.ttad.align import Alignment
from kat_otel.ttad.anchors import Anchors
from kat_otel.ttad.backend import run
from kat_otel.ttad.features import Features
from kat_otel.ttad.lateness_loops import (
    deviations,
    entries,
    last_arrivers,
    on_its_clock,
    shares,
    spread_of_others,
    stands_out,
    tests_of,
)
from kat_otel.ttad.loops import median_of, plain
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
Kinds = tuple[NDArray[np.int64], int]

_CLUSTER = 0.25
"""Ranks within this share of the last arriver's lateness arrive together with it."""

_MIN_GAPS = 16
"""Fewest gaps or stretches that give a scale for first meetings."""

_FEWEST_OTHERS = 5
"""Fewest other arrivals at first meetings whose spread says what is usual there."""

_MIN_EMPIRICAL = 200
"""Fewest deviations of other ranks that serve as the null distribution: launch gaps are skewed to
the right, more than Student's t allows, and over many cells the other ranks of the same step say
how often such a deviation comes without a cause."""

_ENTRY_VALUES = 9
"""All that runs on a host moves a step's start: its scale is trusted like one of so few values."""

_MAD_EFFICIENCY = 0.37
"""A median absolute deviation of n values is as sure as a standard deviation of 0.37 n."""

_LENT = 10
"""Residuals' worth of weight that a meeting's own scale borrows from all meetings."""

_NORMAL = 1000.0
"""Degrees of freedom from which Student's t is the normal."""


@dataclass(frozen=True)
class Lateness:
    """Lateness at every meeting; arrays ``(C, R)``.

    Chances are worked out when they are asked for: few steps have anything to ask for.

    Attributes:
        excess: own stretch minus that of the peers (ns).
        expected: elapsed time since the release had the stretch been as usual (ns).
        z: excess in standard deviations; 0 where not judged.
        counts: an excess here makes others wait: any on the host's clock, which the rank
            carries along, and on the GPU's clock that of the last to arrive.
        last: the rank belongs to the last to arrive, whom the others wait for.
        judged: cells that have peers and a scale.
        tests: by how many a chance below is multiplied.
        entry_gap: largest gap between last and next arrival at first meetings, ns; None: none.
    """

    excess: Float
    expected: Float
    z: Float
    counts: Bool
    last: Bool
    judged: Bool
    tests: Float
    entry_gap: float | None
    _freedom: Float
    _settings: Settings
    _xp: Any

    @property
    def stands_out(self) -> bool:
        """Whether any chance below may be small enough for a finding; False if surely none is."""
        rate = self._settings.false_alarm_rate
        chances = self.z, self._freedom, self.tests
        return stands_out(chances, self.judged, self.counts, rate)

    @cached_property
    def cell_p(self) -> Float:
        """Chance of one such excess without a cause."""
        # a scale of few residuals is itself loose
        chance = np.ones(self.z.shape)
        z, freedom = self.z[self.judged], self._freedom[self.judged]
        (chance[self.judged],) = run(t_tail, z, freedom, xp=self._xp)
        return chance

    @cached_property
    def rank_z(self) -> Float:
        """All meetings of a rank combined (Fisher), as a normal deviate, ``(R,)``."""
        combined = np.maximum(self.cell_p, shares(self.z, self.judged, _MIN_EMPIRICAL))
        (deviate,) = run(combine_p, combined, self.judged, xp=self._xp)
        return deviate

    @cached_property
    def rank_p(self) -> Float:
        """Chance of it, ``(R,)``."""
        (chance,) = run(t_tail, self.rank_z, _NORMAL, xp=self._xp)
        return chance


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
        gaps: :attr:`Lateness.entry_gap` of earlier steps, ns.
        xp: array namespace.
    """
    kind = _stretch_kinds(met, alignment)
    by_gpu = met.member & ~bound.host & ~bound.entry
    gpu = _on_clock(met.elapsed, by_gpu, alignment, kind, settings, xp=xp)
    host = gpu  # where nothing is measured by the host's clock, nothing is asked of it
    if bound.host.any():
        by_host = met.member & (bound.other > 0)
        host = _on_clock(bound.other, by_host, alignment, kind, settings, xp=xp)
    last = last_arrivers(plain(met.member), plain(met.arrival), _CLUSTER)
    excess, sigma, freedom, judged = on_its_clock(bound.host, by_gpu, host, gpu)
    cells = _Cells(excess, sigma, freedom, judged, last)
    came = plain(met.arrival), plain(met.member)
    first = entries(bound.entry, came[1], came[0])
    firsts = _judge_entries(first, bound, cells, came, gaps)
    z, expected, counts = deviations(
        (cells.excess, cells.sigma, plain(met.elapsed), bound.other),
        (cells.judged, bound.host, bound.entry, cells.last),
        features.resolution_ns + settings.jitter_ns,
        settings.relative_jitter,
    )
    return Lateness(
        excess=cells.excess,
        expected=expected,
        z=z,
        counts=counts,
        last=cells.last,
        judged=cells.judged,
        tests=tests_of(cells.judged, *firsts),
        entry_gap=float(first[2].max()) if len(first[2]) else None,
        # a median deviation is looser than a mean one
        _freedom=np.clip(_MAD_EFFICIENCY * (cells.freedom - 1.0), 2.0, settings.tail_freedom),
        _settings=settings,
        _xp=xp,
    )


class _Cells(NamedTuple):
    """Excess of every arrival and the scale it is judged by, ``(C, R)``."""

    excess: Float
    sigma: Float
    freedom: Float
    judged: Bool
    last: Bool


def _on_clock(
    stretch: Float, mask: Bool, alignment: Alignment, kind: Kinds, settings: Settings, *, xp: Any
) -> tuple[Float, Float, Float, Bool]:
    """Stretches measured by one clock against peers measured by the same.

    Returns:
        Excess ``(C, R)``, sigma and degrees of freedom ``(C,)``, and which have peers ``(C, R)``.
    """
    excess, compared = _residuals(stretch, mask, alignment.peers, xp=xp)
    sigma, freedom = _scales(excess, compared, *kind, settings, xp=xp)
    return excess, sigma, freedom.astype(np.float64), compared


def _judge_entries(
    first: tuple[NDArray[np.int64], NDArray[np.int64], Float],
    bound: Anchors,
    cells: _Cells,
    met: tuple[Float, Bool],
    gaps: Sequence[float],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Judges first meetings in place by the gap from last to next arriver; returns which.

    The scale is that of the same gap in earlier steps, else that of the host's stretches in
    this one (the GPU's own are much more regular than what starts a step), else that of the
    others' arrivals at these meetings.
    """
    arrival, member = met
    usual = np.array(gaps, np.float64)
    if len(usual) < _MIN_GAPS:
        usual = np.abs(cells.excess[cells.judged & (bound.host | bound.synced)])
    meeting, final, gap = first
    if len(usual) >= _MIN_GAPS:
        scale = median_of(usual) if len(meeting) else 0.0
    else:
        scale = spread_of_others(arrival, member, meeting, final, _FEWEST_OTHERS)
        if scale < 0:
            return meeting[:0], final[:0]
    cells.excess[meeting, final] = gap
    cells.sigma[meeting] = MAD_TO_SIGMA * scale
    cells.freedom[meeting] = _ENTRY_VALUES
    cells.judged[meeting, final] = True
    cells.last[meeting] = False
    cells.last[meeting, final] = True
    return meeting, final


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
