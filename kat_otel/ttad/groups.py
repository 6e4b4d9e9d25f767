"""Deviations that belong to no rank: a whole group's transfers or everybody's kernels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import njit
from kat_otel.ttad.covariates import attention
from kat_otel.ttad.features import Features
from kat_otel.ttad.history import Expectation
from kat_otel.ttad.impact import saving_ns
from kat_otel.ttad.judged import Judged
from kat_otel.ttad.loops import median_of
from kat_otel.ttad.robust import MAD_TO_SIGMA, t_tail
from kat_otel.ttad.settings import Settings
from kat_otel.verdict import Kind

__all__ = ["GroupChange", "group_changes", "shift_test"]

Float = NDArray[np.float64]

_FEWEST = 3
"""Meetings of a group from which its transfers are judged: a floor stands in for their spread."""


@dataclass(frozen=True, slots=True)
class GroupChange:
    """All ranks of a group differ from their history alike.

    Attributes:
        kind: ``slow_transfer``, ``regression`` or ``imbalance``.
        group: communicator or pipeline stage; "" if unknown.
        nodes: the nodes, the largest excess first.
        columns: ranks concerned.
        ratio: measured to expected time.
        impact_ns: what the step would save.
        score, p: deviation and its chance.
        expected: usual time of each of ``nodes``, ns.
    """

    kind: Kind
    group: str
    nodes: list[int]
    columns: list[int]
    ratio: float
    impact_ns: float
    score: float
    p: float
    expected: list[float]


def group_changes(
    judged: Judged, usual: Expectation | None, settings: Settings
) -> list[GroupChange]:
    """Compares transfers and kernels of whole groups with history."""
    if usual is None or usual.steps < 1:
        return []
    changes = _transfers(judged, usual, settings)
    work = judged.durations.local
    if not usual.trusted:
        # Attention takes as long as contexts are, which spans do not say.
        work = work & ~attention(judged.table, judged.alignment)
    changes += _kernels(judged.features, work, usual, settings)
    smallest = settings.min_impact_fraction * judged.length_ns
    return [c for c in changes if usual.trusted or c.impact_ns >= smallest]


def _transfers(judged: Judged, usual: Expectation, settings: Settings) -> list[GroupChange]:
    met, features = judged.meetings, judged.features
    changes: list[GroupChange] = []
    expected = usual.transfer_of(met.node)
    groups, of_group = _numbered(_pooled(judged, _FEWEST))
    for index, group in enumerate(groups):
        mine = (of_group == index) & (expected > 0)
        if mine.sum() < _FEWEST:
            continue
        measured, usually = met.transfer[mine], expected[mine]
        ratio = float(median_of(measured / usually))
        if ratio < 1 + settings.min_transfer_excess:
            continue
        z, p = shift_test(measured - usually, usually, features.resolution_ns, settings)
        if p > settings.false_alarm_rate:
            continue
        healed = met.transfer.copy()
        healed[mine] = np.minimum(measured, usually)
        order = np.argsort(-(measured - usually), kind="stable")
        changes.append(
            GroupChange(
                kind="slow_transfer",
                group=group,
                nodes=met.node[mine][order].tolist(),
                columns=np.flatnonzero(met.member[mine].any(axis=0)).tolist(),
                ratio=ratio,
                impact_ns=saving_ns(
                    met, judged.anchors, features, np.zeros_like(met.elapsed), healed
                ),
                score=z,
                p=p,
                expected=usually[order].tolist(),
            )
        )
    return changes


def _pooled(judged: Judged, least: int) -> tuple[str, ...]:
    """The group of each meeting; small ones of the same kernel over the same hosts are one.

    Pairs of pipeline stages meet once or twice a step each: together they are enough to tell.
    """
    met = judged.meetings
    counts = Counter(met.group)
    if all(counts[group] >= least for group in counts):
        return met.group
    host = {r.rank: r.host for r in judged.table.resources}
    hosts = [host[rank] for rank in judged.alignment.ranks.tolist()]
    names: list[str] = []
    for at, group in enumerate(met.group):
        if counts[group] >= least:
            names.append(group)
            continue
        there = sorted({hosts[c] for c in np.flatnonzero(met.member[at]).tolist()})
        names.append(f"{judged.family(int(met.node[at]))} between {' and '.join(there)}")
    return tuple(names)


@lru_cache(maxsize=16)  # steps of the same work follow each other
def _numbered(names: tuple[str, ...]) -> tuple[list[str], NDArray[np.int64]]:
    """Returns the distinct names, and each one's number."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return list(numbers), np.array([numbers[name] for name in names], np.int64)


def _kernels(
    features: Features, local: NDArray[np.bool_], usual: Expectation, settings: Settings
) -> list[GroupChange]:
    """The same kernels slower than before on every rank: a regression."""
    smallest = 4 * (features.resolution_ns + settings.jitter_ns)
    at = np.flatnonzero(local)
    usual_of: list[Float] = []
    for column in range(features.present.shape[1]):  # one rank that is no slower clears a node
        usually = usual.duration_of(at, column)
        measured = features.present[:, column].copy(), features.duration[:, column].copy()
        left = _left(measured, at, usually, smallest)
        at = at[left]
        if not len(at):
            return []
        usual_of = [times[left] for times in (*usual_of, usually)]
    if not usual_of:
        return []
    expected = np.stack(usual_of, axis=1)
    known = features.present[at] & (expected > 0)
    counts = known.sum(axis=1)
    usually = np.where(known, expected, 0).sum(axis=1) / np.maximum(counts, 1)
    lowest = np.where(known, features.duration[at] - expected, np.inf).min(axis=1)
    slower = (counts > 0) & (lowest >= settings.min_transfer_excess * usually)
    at, lowest, usually = at[slower], lowest[slower], usually[slower]
    if not len(at):
        return []
    excess = float(lowest.sum())
    z, p = shift_test(lowest, usually, features.resolution_ns, settings)
    if p > settings.false_alarm_rate:
        return []
    order = np.argsort(-lowest, kind="stable")
    total = float(usually.sum())
    return [
        GroupChange(
            kind="regression",
            group="",
            nodes=at[order].tolist(),
            columns=list(range(features.present.shape[1])),
            ratio=1 + excess / max(total, 1.0),
            impact_ns=excess,
            score=z,
            p=p,
            expected=usually[order].tolist(),
        )
    ]


@njit("boolean[::1](Tuple((boolean[::1], float64[::1])), int64[::1], float64[::1], float64)")
def _left(measured: Any, nodes: Any, usually: Any, smallest: float) -> Any:
    """Nodes that a rank (present, duration) lacks, of no history, or so much slower than usual."""
    present, duration = measured
    left = np.empty(len(nodes), np.bool_)
    for at in range(len(nodes)):
        known = present[nodes[at]] and usually[at] > 0
        left[at] = not known or duration[nodes[at]] - usually[at] > smallest
    return left


def shift_test(
    difference: Float, usually: Float, resolution_ns: int, settings: Settings
) -> tuple[float, float]:
    """Whether many times are longer than usual: a robust location test on their ratios.

    Backed by a sign test, since times of several kinds (forward and backward) may all be longer
    by different ratios; the smaller chance of the two is doubled for the choice.

    Args:
        difference: measured minus usual, ns ``(n,)``.
        usually: usual times, ns ``(n,)``, positive.
        resolution_ns: of the clock.
        settings: floors and tails.

    Returns:
        z and its chance without a cause.
    """
    ratio = difference / usually
    middle = float(np.median(ratio))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(ratio - middle)))
    # a difference of two rounded times has the variance of a uniform width squared over 6
    jitter = np.hypot(resolution_ns / np.sqrt(6), settings.jitter_ns)
    floor = float(np.median(jitter / usually))
    # 1.2533: standard error of a median, against that of a mean
    error = 1.2533 * max(spread, floor + settings.relative_jitter) / np.sqrt(len(ratio))
    z = float(middle / error)
    p = float(t_tail(np.asarray(z), settings.tail_freedom, xp=np))
    longer, count = int((difference > 0).sum()), len(ratio)
    (by_sign,) = t_tail(np.array([(longer - 0.5 - count / 2) / np.sqrt(count / 4)]), 1e3, xp=np)
    by_sign = 0.5**count if longer == count else float(by_sign)  # exact where all are longer
    return z, float(min(2 * p, 2 * by_sign, 1.0))
