"""Kernels whose time goes with something that spans do not say.

Grid and block are covariates of most kernels: more work shows in the launch. Attention takes as
long as the contexts of its sequences, and an expert rank as long as the tokens that were routed to
it: both with the same launch. So attention's history is no measure of it, ranks with different
experts are no peers in their experts' kernels, and replicas with batches of their own are none in
attention, nor where their launches differ.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

import array_api_compat.numpy as numpy_xp
import numpy as np
from numpy.typing import NDArray

from kat_otel.per_string import PerString
from kat_otel.spans import SpanTable
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.features import Features
from kat_otel.ttad.meetings import Meetings
from kat_otel.ttad.robust import masked_median

__all__ = ["attention", "levelled", "own_batches", "own_experts"]

_ATTENTION: Final = re.compile(
    r"FlashAttn|flash_fwd|flash_attn|fmha|paged_attention|unified_attention|_mla_|attn_fwd|"
    r"BatchPrefill|BatchDecode",
    re.IGNORECASE,
)
_EXPERTS: Final = re.compile(
    r"fused_moe|grouped?_?gemm|GemmType\)[12]|dynBatch|moe_?gemm|matmul_ogs", re.IGNORECASE
)
_IS_ATTENTION: Final = PerString(lambda name: int(bool(_ATTENTION.search(name))))
_IS_EXPERT: Final = PerString(lambda name: int(bool(_EXPERTS.search(name))))


def attention(table: SpanTable, alignment: Alignment) -> NDArray[np.bool_]:
    """Returns which nodes are attention, bool ``(N,)``."""
    return _which(_IS_ATTENTION, table, alignment)


def own_experts(table: SpanTable, alignment: Alignment) -> NDArray[np.bool_]:
    """Returns which nodes are experts' work that differs by rank, bool ``(N,)``.

    What runs between two of their kernels (their activation) is on the same tokens.
    """
    if len({r.ep for r in table.resources}) < 2:
        return np.zeros(len(alignment.rows), np.bool_)
    experts = _which(_IS_EXPERT, table, alignment)
    between = experts.copy()
    between[1:-1] |= experts[:-2] & experts[2:]
    return between


def own_batches(table: SpanTable, alignment: Alignment) -> bool:
    """Whether ranks of one symmetry class belong to replicas with batches of their own."""
    replica = {r.rank: r.dp for r in table.resources}
    places = {
        (int(one), replica[rank])
        for one, rank in zip(alignment.peers, alignment.ranks.tolist(), strict=True)
    }
    return len(places) > len({one for one, _ in places})


def levelled(
    met: Meetings, features: Features, unlike: NDArray[np.bool_], usual: NDArray[np.float64]
) -> Meetings:
    """Returns the meetings as if no rank had more to do than the middle one before each of them.

    Args:
        met: the meetings.
        features: of the step.
        unlike: nodes in which ranks have different amounts to do, ``(N,)``.
        usual: what they should take, ns ``(N, R)``; 0 where unknown: then what they took.
    """
    if not unlike.any() or not len(met.node):
        return met
    spent = np.zeros(met.elapsed.shape)
    for column in range(met.elapsed.shape[1]):
        nodes = np.flatnonzero(unlike & features.present[:, column])
        nodes = nodes[np.argsort(features.start[nodes, column], kind="stable")]
        known = usual[nodes, column]
        taken = np.array(np.where(known > 0, known, features.duration[nodes, column]), np.float64)
        until = np.concatenate([[0.0], np.cumsum(taken)])
        start = features.start[nodes, column]
        arrival = met.arrival[:, column]
        released = arrival - met.elapsed[:, column]
        more = until[np.searchsorted(start, arrival)] - until[np.searchsorted(start, released)]
        spent[:, column] = np.where(met.member[:, column], more, 0.0)
    middle, _ = masked_median(spent, met.member, xp=numpy_xp)
    lighter = met.elapsed - np.maximum(spent - middle[:, None], 0.0)
    return replace(met, elapsed=np.where(met.member, np.maximum(lighter, 0.0), met.elapsed))


def _which(of_name: PerString, table: SpanTable, alignment: Alignment) -> NDArray[np.bool_]:
    rows = alignment.rows.max(axis=1) if alignment.rows.shape[1] else np.empty(0, np.int64)
    return of_name.of(table.strings, table.name[rows]) != 0
