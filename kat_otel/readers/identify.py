"""Ids for spans read from files that carry none, the same whenever the files are read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from kat_otel.identity import nonce_of, root_span_id, span_ids, trace_ids
from kat_otel.spans import SpanKind, SpanTable, concat

__all__ = ["identify"]

_BLOCK = 1 << 18
"""Rows at once, so that the hashing's intermediate arrays stay small beside the columns."""


def identify(tables: Sequence[SpanTable], files: Sequence[str]) -> SpanTable:
    """Returns all tables as one, with ids where they have none.

    The nonce comes from the file names without their folders, so that a moved folder keeps its
    ids. A rank's spans are counted on through its files.
    """
    if not tables:
        return SpanTable.empty()
    ordinals: list[int] = []  # of the first span of each file
    counted: dict[int, int] = {}
    for table in tables:
        ranks = {resource.rank for resource in table.resources}
        first = max((counted.get(rank, 0) for rank in ranks), default=0)
        ordinals.append(first)
        counted |= dict.fromkeys(ranks, first + len(table))
    nonce = nonce_of("\n".join(sorted(PurePath(file).name for file in files)))
    sizes = [len(table) for table in tables]
    whole = concat(tables)
    at = 0
    for size, first in zip(sizes, ordinals, strict=True):
        for low in range(at, at + size, _BLOCK):
            high = min(low + _BLOCK, at + size)
            _fill(whole, slice(low, high), nonce, first + low - at)
        at += size
    for low in range(0, len(whole), _BLOCK):
        _fill_parents(whole, slice(low, low + _BLOCK))
    return whole


def _fill(table: SpanTable, rows: slice, nonce: int, first_ordinal: int) -> None:
    bare = table.span_id[rows] == 0
    if not bare.any():
        return
    hi, lo = trace_ids(nonce, table.step[rows])
    ranks = np.array([r.rank for r in table.resources], dtype=np.int64)[table.resource[rows]]
    ordinal = np.arange(first_ordinal, first_ordinal + len(lo), dtype=np.int64)
    table.trace_hi[rows] = np.where(bare, hi, table.trace_hi[rows])
    table.trace_lo[rows] = np.where(bare, lo, table.trace_lo[rows])
    ids = span_ids(table.trace_lo[rows], ranks, ordinal)
    table.span_id[rows] = np.where(bare, ids, table.span_id[rows])


def _fill_parents(table: SpanTable, rows: slice) -> None:
    parent = table.parent[rows]
    has = parent >= 0
    ids = np.where(has, table.span_id[np.maximum(parent, 0)], table.parent_id[rows])
    bare = ~has & (ids == 0) & (table.kind[rows] == SpanKind.WORKER_STEP)
    table.parent_id[rows] = np.where(bare, root_span_id(table.trace_lo[rows]), ids)
