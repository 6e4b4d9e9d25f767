"""Kernels whose time goes with something that spans do not say.

Grid and block are covariates of most kernels: more work shows in the launch. Attention takes as
long as the contexts of its sequences, and an expert rank as long as the tokens that were routed to
it: both with the same launch. So attention's history is no measure of it, and ranks with different
experts are no peers in their experts' kernels.
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

__all__ = ["attention", "own_experts", "without_experts"]

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
    """Returns which nodes are experts' work that differs by rank, bool ``(N,)``."""
    if len({r.ep for r in table.resources}) < 2:
        return np.zeros(len(alignment.rows), np.bool_)
    return _which(_IS_EXPERT, table, alignment)


def without_experts(
    met: Meetings, table: SpanTable, alignment: Alignment, features: Features
) -> Meetings:
    """Returns the meetings with all ranks' experts taking equally long before each of them.

    Each stretch of work loses what the rank's experts took in it and gets what they took in the
    middle rank: what is left to compare is the ranks' own.
    """
    experts = own_experts(table, alignment)
    if not experts.any() or not len(met.node):
        return met
    spent = np.zeros(met.elapsed.shape)
    for column in range(met.elapsed.shape[1]):
        nodes = np.flatnonzero(experts & features.present[:, column])
        nodes = nodes[np.argsort(features.start[nodes, column], kind="stable")]
        until = np.concatenate([[0.0], np.cumsum(features.duration[nodes, column])])
        start = features.start[nodes, column]
        arrival = met.arrival[:, column]
        released = arrival - met.elapsed[:, column]
        taken = until[np.searchsorted(start, arrival)] - until[np.searchsorted(start, released)]
        spent[:, column] = np.where(met.member[:, column], taken, 0.0)
    middle, _ = masked_median(spent, met.member, xp=numpy_xp)
    levelled = met.elapsed - spent + np.where(met.member, middle[:, None], 0.0)
    return replace(met, elapsed=np.where(met.member, np.maximum(levelled, 0.0), met.elapsed))


def _which(of_name: PerString, table: SpanTable, alignment: Alignment) -> NDArray[np.bool_]:
    rows = alignment.rows.max(axis=1) if alignment.rows.shape[1] else np.empty(0, np.int64)
    return of_name.of(table.strings, table.name[rows]) != 0
