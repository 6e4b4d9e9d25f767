"""Pipeline stages that take longer than the others: said of the stage, never blamed on a rank.

Stages do different work, so their ranks are no peers. What can be said is which stage the
pipeline waits for: the same operation (a micro-batch's forward) takes longer on every rank
of one stage than on the ranks of the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import UNKNOWN
from kat_otel.ttad.features import Features
from kat_otel.ttad.groups import GroupChange, shift_test
from kat_otel.ttad.judged import Judged
from kat_otel.ttad.settings import Settings

__all__ = ["slow_stages"]

_ONE_MODE = 1.6
"""Nine tenths of a kind's durations lie within this factor, else there are several modes."""


def slow_stages(judged: Judged, settings: Settings) -> list[GroupChange]:
    """Returns an ``imbalance`` for each stage that is slower than every other stage."""
    stage = _stages(judged)
    stages = np.unique(stage[stage != UNKNOWN])
    if len(stages) < 2:
        return []
    features = judged.features
    usable = features.present & (judged.durations.local & ~judged.durations.unlike)[:, None]
    kind = _kinds(judged)
    typical = np.stack([_typical(features, kind, usable & (stage == s)[None, :]) for s in stages])
    # operations that every stage runs
    shared: NDArray[np.bool_] = np.logical_and.reduce(typical > 0, axis=0)
    if not shared.any():
        return []
    found: list[GroupChange] = []
    for at, number in enumerate(stages):
        others = np.delete(typical, at, axis=0)
        mine = usable & (stage == number)[None, :] & shared[kind]
        nodes, columns = np.nonzero(mine)
        if len(nodes) < settings.min_pool:
            continue
        usual = np.median(others, axis=0)[kind[nodes, columns]]
        excess = features.duration[nodes, columns] - usual
        ratio = 1 + _of_most(excess, usual, columns)
        z, p = shift_test(excess, usual, features.resolution_ns, settings)
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
                expected=[float(u) for u in usual[order]],
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


def _kinds(judged: Judged) -> NDArray[np.int64]:
    """Number of each cell's kernel family and launch shape, ``(N, R)``.

    Not its node: schedules such as 1F1B order the same operations differently on each stage.
    """
    table, alignment = judged.table, judged.alignment
    rows = np.maximum(alignment.rows, 0)
    keys = [np.broadcast_to(alignment.family[:, None], rows.shape), table.grid[rows]]
    each = np.stack([*keys, table.block[rows]], axis=-1).reshape(-1, 3)
    _, kind = np.unique(each, axis=0, return_inverse=True)
    return kind.reshape(rows.shape).astype(np.int64)


def _typical(
    features: Features, kind: NDArray[np.int64], usable: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Median duration of each kind of work in a stage, ns ``(kinds,)``; 0 where absent.

    Also where there are several modes: the same kernel and grid may serve matrices of different
    depth, of which stages have different shares.
    """
    mine, duration = kind[usable], features.duration[usable]
    order = np.lexsort((duration, mine))
    ids, first, count = np.unique(mine[order], return_index=True, return_counts=True)
    ordered = duration[order]
    middle = (ordered[first + (count - 1) // 2] + ordered[first + count // 2]) / 2
    low, high = ordered[first + count // 10], ordered[first + (9 * (count - 1)) // 10]
    typical = np.zeros(int(kind.max(initial=0)) + 1)
    typical[ids] = np.where(high <= _ONE_MODE * np.maximum(low, 1.0), middle, 0.0)
    return typical
