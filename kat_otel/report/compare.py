"""The culprit's kernels against its peers and its own history: does the work take longer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import family
from kat_otel.spans import UNKNOWN, SpanKind, SpanTable
from kat_otel.verdict import Incident

__all__ = ["Comparison", "KernelRow", "compare_kernels"]

_ROWS = 6
"""Kernels shown: the ones whose time differs most."""


@dataclass(frozen=True, slots=True)
class KernelRow:
    """Time of one kernel family in the step: per culprit rank, and the peers' median rank, ns.

    ``before_ns`` is the culprit's time in the median step of the healthy recording, None without.
    """

    name: str
    culprit_ns: float
    peers_ns: float
    culprit_count: float
    peers_count: float
    before_ns: float | None = None

    @property
    def difference_ns(self) -> float:
        """How much longer the culprit takes, ns; negative if it is faster."""
        return self.culprit_ns - self.peers_ns


@dataclass(frozen=True, slots=True)
class Comparison:
    """Kernel families that differ most, and the sum over all of them."""

    total: KernelRow
    rows: tuple[KernelRow, ...]
    families: int
    peers: tuple[int, ...]


def compare_kernels(
    table: SpanTable, incident: Incident, baseline: SpanTable | None = None
) -> Comparison | None:
    """Compares compute kernels and copies of the culprit with the other ranks.

    Collectives are left out: a victim's collective is long because it waits. Ranks of other
    pipeline stages are no peers and are left out too.

    Args:
        table: the spans of one step, with collectives classified.
        incident: tells the culprit ranks.
        baseline: a healthy recording of the same work, with collectives classified.

    Returns:
        The comparison, or None if the culprit or its peers have no such kernels in the step.
    """
    rows = np.flatnonzero(table.on_gpu & (table.kind != SpanKind.COLLECTIVE))
    rank = table.rank[rows].astype(np.int64)
    ranks = np.unique(rank)
    culprits = np.isin(ranks, incident.culprit.ranks)
    peers = ~culprits & _same_stage(table, ranks, ranks[culprits])
    if not culprits.any() or not peers.any():
        return None
    names, place = np.unique(table.name[rows], return_inverse=True)
    codes: dict[str, int] = {}
    code = [codes.setdefault(family(table.text(int(name))), len(codes)) for name in names]
    family_of = np.array(code, dtype=np.int64)[place.reshape(-1)]
    cell = family_of * len(ranks) + np.searchsorted(ranks, rank)
    size = len(codes) * len(ranks)
    shape = (len(codes), len(ranks))
    time = np.bincount(cell, weights=table.duration_ns[rows], minlength=size).reshape(shape)
    count = np.bincount(cell, minlength=size).reshape(shape)

    culprit_ns, peers_ns = time[:, culprits].mean(axis=1), np.median(time[:, peers], axis=1)
    culprit_n, peers_n = count[:, culprits].mean(axis=1), np.median(count[:, peers], axis=1)
    order = np.argsort(-np.abs(culprit_ns - peers_ns), kind="stable")[:_ROWS]
    texts = list(codes)
    found = tuple(
        KernelRow(
            texts[int(k)],
            float(culprit_ns[k]),
            float(peers_ns[k]),
            float(culprit_n[k]),
            float(peers_n[k]),
        )
        for k in order
    )
    total = KernelRow(
        "all kernels and copies",
        float(time[:, culprits].sum(axis=0).mean()),
        float(np.median(time[:, peers].sum(axis=0))),
        float(count[:, culprits].sum(axis=0).mean()),
        float(np.median(count[:, peers].sum(axis=0))),
    )
    if baseline is not None:
        before = _before(baseline, incident.culprit.ranks)
        if before:
            found = tuple(replace(row, before_ns=before.get(row.name, 0.0)) for row in found)
            total = replace(total, before_ns=sum(before.values()))
    return Comparison(total, found, len(codes), tuple(int(k) for k in ranks[peers]))


def _before(baseline: SpanTable, ranks: Sequence[int]) -> dict[str, float]:
    """Returns the time of every kernel family per step and rank, ns: of the median step."""
    rows = np.flatnonzero(
        baseline.on_gpu & (baseline.kind != SpanKind.COLLECTIVE) & np.isin(baseline.rank, ranks)
    )
    if not len(rows):
        return {}
    steps, step = np.unique(baseline.step[rows], return_inverse=True)
    names, place = np.unique(baseline.name[rows], return_inverse=True)
    codes: dict[str, int] = {}
    code = [codes.setdefault(family(baseline.text(int(name))), len(codes)) for name in names]
    cell = np.array(code, dtype=np.int64)[place.reshape(-1)] * len(steps) + step.reshape(-1)
    size = len(codes) * len(steps)
    time = np.bincount(cell, weights=baseline.duration_ns[rows], minlength=size)
    present = len(np.unique(baseline.rank[rows]))
    middle = np.median(time.reshape(len(codes), len(steps)), axis=1) / present
    return dict(zip(codes, middle.tolist(), strict=True))


def _same_stage(
    table: SpanTable, ranks: NDArray[np.int64], culprits: NDArray[np.int64]
) -> NDArray[np.bool_]:
    stage = {r.rank: r.pp for r in table.resources}
    of_rank = np.array([stage.get(int(rank), UNKNOWN) for rank in ranks])
    wanted = {stage.get(int(rank), UNKNOWN) for rank in culprits}
    return np.isin(of_rank, sorted(wanted))
