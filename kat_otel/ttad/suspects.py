"""From significant deviations to suspects: which ranks, by what kind of cause, at what cost.

One cause is one suspect however many spans it touches; ranks that are late together, at
mostly the same meetings, are one suspect.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import SpanKind
from kat_otel.ttad.cause import Walk, walk_back
from kat_otel.ttad.durations import Durations
from kat_otel.ttad.impact import saving_ns
from kat_otel.ttad.judged import Judged
from kat_otel.ttad.lateness import Lateness
from kat_otel.ttad.settings import Settings
from kat_otel.verdict import Kind

__all__ = ["Suspect", "suspects"]

Bool = NDArray[np.bool_]

_MIN_CELL_Z = 1.0
"""A late arrival of a rank that is late beyond chance counts towards its cost from here on."""

_MAX_WALKS = 48
"""Late arrivals walked back per suspect, the costliest first: bounds the time of a verdict."""

_LASTING = 3
"""Slow kernels for which nobody waited are reported from this number on, or if they are long."""

_CLUSTER_SHARE = 0.25
"""Ranks are late together if the lesser lateness is at least this share of the greater."""

_MARKED = 0.1
"""A wait is listed if it is this share of the longest that the suspect caused."""

_BROAD = 0.5
"""A rank is slow as a whole if families with this share of its kernel time are slower."""

_MOST_JOINT = 16
"""Deviations of a rank that are judged together at most."""

_JOINT_Z = 4.0
"""Of a rank with kernels beyond chance, those above this are cited."""


@dataclass(slots=True)
class Suspect:
    """One cause in one step.

    Attributes:
        columns: columns of the culprit ranks.
        kind: what went wrong.
        sure: false if it is not known which side deviates.
        meetings: meetings at which they arrived late and were waited for.
        victims: columns of the ranks that waited.
        nodes: culprit's nodes that exceed their expectation, the largest excess first.
        walk: where the lateness began.
        impact_ns: what the step would save.
        own_ns: excess time of the culprit's own work, waited for or not.
        score: deviation in standard deviations.
        p: false-alarm probability, corrected for the number of tests.
        extra: kernels the culprits ran that no peer ran.
        slowdown: share by which all its kernels exceed the peers'.
    """

    columns: list[int]
    kind: Kind
    sure: bool
    score: float
    p: float
    meetings: list[int] = field(default_factory=list[int])
    victims: list[int] = field(default_factory=list[int])
    nodes: list[int] = field(default_factory=list[int])
    walk: Walk = field(default_factory=Walk)
    impact_ns: float = 0.0
    own_ns: float = 0.0
    extra: int = 0
    slowdown: float = 0.0


def suspects(judged: Judged, settings: Settings) -> list[Suspect]:
    """Returns the suspects of one step by impact, the largest first."""
    work = judged.durations
    slow_nodes, slow_ranks = _slow(work, settings)
    cells = _late_cells(judged.lateness, settings)
    smallest = settings.min_impact_fraction * judged.length_ns
    ranks = len(judged.alignment.ranks)
    found: list[Suspect] = []
    for columns in _together(cells, judged.lateness):
        suspect = _late_suspect(columns, cells, judged, settings)
        is_slow = slow_nodes[:, columns].sum() >= _LASTING or slow_ranks[columns].any()
        if suspect.impact_ns < smallest and not is_slow:
            continue
        if suspect.impact_ns >= smallest and "walk" not in settings.without:
            suspect.kind = _kind(suspect, slow_ranks)
        elif is_slow:  # nobody lost much, but its kernels are slow beyond chance
            suspect.kind = _slow_kind(columns, slow_nodes, slow_ranks, judged)
        suspect.nodes = _top_nodes(suspect, slow_nodes, work)
        if suspect.kind in ("slow_rank", "slow_kernel", "slow_copy"):
            suspect.impact_ns = max(suspect.impact_ns, _kernel_saving(suspect, cells, judged))
        found.append(suspect)
    blamed = {c for s in found for c in s.columns}
    waiting = {c for s in found for c in s.victims}
    slow: list[int] = np.flatnonzero(slow_ranks | work.large).tolist()
    for column in slow:
        if column not in blamed and (slow_ranks[column] or slow_nodes[:, column].any()):
            suspect = _slow_suspect(column, slow_nodes, slow_ranks, judged)
            suspect.impact_ns = _kernel_saving(suspect, cells, judged)
            lasting = len(suspect.nodes) >= _LASTING or suspect.own_ns >= smallest
            if lasting and (suspect.sure or not waiting):
                found.append(suspect)
    found = _two_sides(found, ranks)
    found.sort(key=lambda s: (-s.impact_ns, -s.own_ns))
    return found[: settings.max_incidents]


def _slow(judged: Durations, settings: Settings) -> tuple[Bool, Bool]:
    """Slow nodes ``(N, R)`` and ranks that are slow as a whole ``(R,)``.

    A rank's largest deviations are judged together: of n kernels, k or more beyond the k-th
    largest deviation have a chance of at most ``(n p)^k / k!``.
    """
    count = judged.excess.shape[1]
    nodes = np.zeros(judged.excess.shape, dtype=np.bool_)
    columns: list[int] = np.flatnonzero(judged.large).tolist()
    for column in columns:
        least = settings.min_kernel_excess * judged.expected[:, column]
        mine = np.flatnonzero(judged.judged[:, column] & (judged.excess[:, column] >= least))
        z = judged.z(mine, column)
        p = np.sort(judged.p(z))[:_MOST_JOINT]
        k = np.arange(1, len(p) + 1)
        expected = np.maximum(judged.judged[:, column].sum() * p, 1e-300)
        chance = np.exp(k * np.log(expected) - np.cumsum(np.log(k)))
        if chance.min() * len(p) * count <= settings.false_alarm_rate:
            nodes[mine, column] = z >= _JOINT_Z
    ranks = judged.rank_excess >= settings.min_rank_excess
    ranks &= count > 1  # a rank alone has nobody to be slower than
    if ranks.any():
        ranks &= judged.rank_p * count <= settings.false_alarm_rate
        ranks &= judged.breadth >= _BROAD
    return nodes, ranks


def _late_cells(late: Lateness, settings: Settings) -> Bool:
    """Late arrivals that count, bool ``(C, R)``."""
    if not late.stands_out:
        return np.zeros(late.z.shape, np.bool_)
    alone = late.cell_p * late.tests <= settings.false_alarm_rate
    flagged = (late.rank_z > 0) & (late.rank_p * late.rank_p.size <= settings.false_alarm_rate)
    return late.counts & (alone | (flagged & (late.z >= _MIN_CELL_Z)))


def _together(cells: Bool, late: Lateness) -> list[list[int]]:
    """Groups columns that are late at mostly the same meetings and about as much."""
    if not cells.any():
        return []
    total = np.where(cells, late.excess, 0.0).sum(axis=0)
    left: list[int] = [int(c) for c in np.argsort(-total) if cells[:, c].any()]
    groups: list[list[int]] = []
    while left:
        first = left.pop(0)
        mates = [
            c
            for c in left
            if (cells[:, first] & cells[:, c]).sum() >= 0.5 * (cells[:, first] | cells[:, c]).sum()
            and total[c] >= _CLUSTER_SHARE * total[first]
        ]
        groups.append(sorted([first, *mates]))
        left = [c for c in left if c not in mates]
    return groups


def _late_suspect(columns: list[int], cells: Bool, judged: Judged, settings: Settings) -> Suspect:
    met, late = judged.meetings, judged.lateness
    mine: Bool = np.zeros(cells.shape, dtype=np.bool_)
    mine[:, columns] = cells[:, columns]
    healed = np.where(mine, late.excess, 0.0)
    meetings = _waited_for(columns, judged)
    victims = np.asarray(met.member[meetings].any(axis=0))
    victims[np.array(columns)] = False
    lead = max(columns, key=lambda c: float(np.where(mine[:, c], late.excess[:, c], 0.0).sum()))
    at = np.flatnonzero(mine[:, lead])
    walks = 0 if "walk" in settings.without else _MAX_WALKS
    costliest = at[np.argsort(-late.excess[at, lead], kind="stable")][:walks]
    p = min(
        float((late.cell_p * late.tests)[mine].min(initial=1.0)),
        float(late.rank_p[columns].min()) * late.rank_p.size,
        1.0,
    )
    present = judged.alignment.present
    theirs = np.delete(present, columns, axis=1).any(axis=1)
    alone = present[:, columns].any(axis=1) & ~theirs
    return Suspect(
        columns=columns,
        kind="late_launch",
        sure=True,
        score=float(max(late.z[mine].max(initial=0.0), late.rank_z[columns].max())),
        p=p,
        meetings=meetings,
        victims=np.flatnonzero(victims).tolist(),
        walk=walk_back(lead, [(int(c), float(late.excess[c, lead])) for c in costliest], judged),
        impact_ns=saving_ns(met, judged.anchors, judged.features, healed, met.transfer),
        extra=int(alone.sum()),
        slowdown=float(judged.durations.rank_excess[lead]),
    )


def _kernel_saving(suspect: Suspect, cells: Bool, judged: Judged) -> float:
    """What the step would save with the suspect's slow kernels at their expected time (ns)."""
    met, work = judged.meetings, judged.durations
    healed = np.zeros(met.elapsed.shape)
    for column in suspect.columns:
        mine = np.flatnonzero(met.member[:, column])
        ends = judged.features.end[suspect.nodes, column]
        at = np.searchsorted(met.arrival[mine, column], ends - judged.features.resolution_ns)
        before = at < len(mine)
        excess = work.excess[suspect.nodes, column]
        np.add.at(healed[:, column], mine[at[before]], excess[before])
    late = np.zeros(healed.shape)
    own = cells[:, suspect.columns]
    late[:, suspect.columns] = np.where(own, judged.lateness.excess[:, suspect.columns], 0.0)
    healed = np.where(judged.anchors.host, 0.0, np.maximum(healed, 0.0))  # launches hide kernels
    healed = np.minimum(np.maximum(healed, late), met.elapsed)
    return saving_ns(met, judged.anchors, judged.features, healed, met.transfer)


def _waited_for(columns: list[int], judged: Judged) -> list[int]:
    """Meetings at which the others waited for these ranks, markedly against their worst."""
    met, late = judged.meetings, judged.lateness
    others = met.member.copy()
    others[:, columns] = False
    mine = met.member & ~others
    mine &= late.last
    latest = np.where(mine, met.arrival, -np.inf).max(axis=1, initial=-np.inf)
    before = np.where(others, met.arrival, -np.inf).max(axis=1, initial=-np.inf)
    there = mine.any(axis=1) & others.any(axis=1)
    gap = np.where(there, latest, 0.0) - np.where(there, before, 0.0)
    floor = max(2 * judged.features.resolution_ns, _MARKED * float(gap.max(initial=0.0)))
    marked: list[int] = np.flatnonzero(there & (gap > floor)).tolist()
    return marked


def _kind(suspect: Suspect, slow_ranks: Bool) -> Kind:
    shares = suspect.walk.shares()
    largest = max(shares, key=lambda k: shares[k])
    if largest == "kernels":
        if any(slow_ranks[c] for c in suspect.columns):
            return "slow_rank"
        return "slow_kernel"
    if largest == "copies":
        return "slow_copy"
    return "late_launch" if largest == "launch" else "stall"


def _slow_kind(columns: list[int], slow_nodes: Bool, slow_ranks: Bool, judged: Judged) -> Kind:
    """What is slow on ranks that nobody (measurably) waited for: by where most of it lies."""
    if slow_ranks[columns].any():
        return "slow_rank"
    excess = np.where(slow_nodes[:, columns], judged.durations.excess[:, columns], 0.0).sum(axis=1)
    copies = np.isin(judged.features.kind, (SpanKind.MEMCPY, SpanKind.MEMSET))
    return "slow_copy" if excess[copies].sum() > 0.5 * excess.sum() else "slow_kernel"


def _top_nodes(suspect: Suspect, slow_nodes: Bool, judged: Durations) -> list[int]:
    """Nodes to cite: what the walk blames, then what stands out by itself."""
    if suspect.kind in ("late_launch", "stall"):
        return suspect.walk.launched_late
    blamed = suspect.walk.copies if suspect.kind == "slow_copy" else suspect.walk.kernels
    nodes = sorted((n for n in blamed if blamed[n] > 0), key=lambda n: -blamed[n])
    flagged = np.flatnonzero(slow_nodes[:, suspect.columns].any(axis=1)).tolist()
    flagged.sort(key=lambda n: -float(judged.excess[n, suspect.columns].max()))
    if suspect.kind == "slow_kernel" and flagged:
        return flagged
    return nodes + [n for n in flagged if n not in blamed]


def _slow_suspect(column: int, slow_nodes: Bool, slow_ranks: Bool, judged: Judged) -> Suspect:
    """A rank whose kernels are slow although nobody (measurably) waited for it.

    One slow kernel that cost nobody anything is weather; the caller asks for more.
    """
    work = judged.durations
    nodes = np.flatnonzero(slow_nodes[:, column])
    whole = bool(slow_ranks[column])
    if whole:
        nodes = np.flatnonzero(work.judged[:, column])
        sided = work.sided[nodes, column].any()
        z, p = float(work.rank_z[column]), float(work.rank_p[column]) * len(work.rank_p)
    else:
        sided = work.sided[nodes, column].all()
        deviations = work.z(nodes, column)
        z = float(deviations.max())
        p = float(work.p(deviations).min()) * int(work.judged.sum())
    nodes = nodes[np.argsort(-work.excess[nodes, column], kind="stable")]
    return Suspect(
        columns=[column],
        kind=_slow_kind([column], slow_nodes, slow_ranks, judged),
        sure=bool(sided) and len(judged.alignment.ranks) > 1,
        score=z,
        p=min(p, 1.0),
        nodes=nodes.tolist(),
        own_ns=float(np.maximum(work.excess[nodes, column], 0.0).sum()),
        slowdown=float(work.rank_excess[column]),
    )


def _two_sides(found: list[Suspect], ranks: int) -> list[Suspect]:
    """Suspects without a side (two peers, no history) become one that names both."""
    unsure = [s for s in found if not s.sure]
    if not unsure or ranks < 2:
        return found
    biggest = max(unsure, key=lambda s: s.own_ns)
    biggest.columns = list(range(ranks))
    return [s for s in found if s.sure] + [biggest]
