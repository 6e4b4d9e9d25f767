"""Pipeline stages that take longer than the others: said of the stage, never blamed on a rank.

Stages do different work, so their ranks are no peers. What can be said is which stage the
pipeline waits for: the same operation (a micro-batch's forward) takes longer on every rank
of one stage than on the ranks of the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import UNKNOWN
from kat_otel.ttad.groups import GroupChange, shift_test
from kat_otel.ttad.judged import Judged
from kat_otel.ttad.settings import Settings

__all__ = ["slow_stages"]


def slow_stages(judged: Judged, settings: Settings) -> list[GroupChange]:
    """Returns an ``imbalance`` for each stage that is slower than every other stage."""
    stage = _stages(judged)
    stages = np.unique(stage[stage != UNKNOWN])
    if len(stages) < 2:
        return []
    features, alignment = judged.features, judged.alignment
    usable = features.present & judged.durations.local[:, None]
    typical = np.stack([_typical(judged, usable & (stage == s)[None, :]) for s in stages])
    # operations that every stage runs
    shared: NDArray[np.bool_] = np.logical_and.reduce(typical > 0, axis=0)
    found: list[GroupChange] = []
    for at, number in enumerate(stages):
        others = np.delete(typical, at, axis=0)
        usual = np.median(others, axis=0)[alignment.family]
        mine = usable & (stage == number)[None, :] & shared[alignment.family][:, None]
        nodes, columns = np.nonzero(mine)
        if len(nodes) < settings.min_pool:
            continue
        excess = features.duration[nodes, columns] - usual[nodes]
        ratio = 1 + _of_most(excess, usual[nodes], columns)
        z, p = shift_test(excess, usual[nodes], features.resolution_ns, settings)
        slowest = bool((typical[at] >= others.max(axis=0))[shared].all())
        if ratio < 1 + settings.min_stage_excess or p > settings.false_alarm_rate or not slowest:
            continue
        order = np.argsort(-excess, kind="stable")
        found.append(
            GroupChange(
                kind="imbalance",
                group=f"pipeline stage {int(number)}",
                nodes=[int(n) for n in nodes[order]],
                columns=[int(c) for c in np.flatnonzero(stage == number)],
                ratio=ratio,
                impact_ns=float(excess.sum()) / int((stage == number).sum()),
                score=z,
                p=p,
                expected=[float(u) for u in usual[nodes[order]]],
            )
        )
    return found


def _of_most(
    excess: NDArray[np.float64], usual: NDArray[np.float64], columns: NDArray[np.int64]
) -> float:
    """Share by which the middle rank of a stage exceeds the usual: one slow rank is no stage."""
    longer, whole = np.bincount(columns, excess), np.bincount(columns, usual)
    return float(np.median(longer[whole > 0] / whole[whole > 0]))


def _stages(judged: Judged) -> NDArray[np.int64]:
    of_rank = {r.rank: r.pp for r in judged.table.resources}
    return np.array([of_rank[int(r)] for r in judged.alignment.ranks], dtype=np.int64)


def _typical(judged: Judged, usable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Median duration of each kernel family in a stage, ns ``(families,)``; 0 where absent.

    By family and not by node: schedules such as 1F1B order the same operations differently
    on each stage.
    """
    nodes, columns = np.nonzero(usable)
    family = judged.alignment.family[nodes]
    duration = judged.features.duration[nodes, columns]
    order = np.lexsort((duration, family))
    ids, first, count = np.unique(family[order], return_index=True, return_counts=True)
    ordered = duration[order]
    typical = np.zeros(len(judged.alignment.families))
    typical[ids] = (ordered[first + (count - 1) // 2] + ordered[first + count // 2]) / 2
    return typical
