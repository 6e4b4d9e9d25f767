"""Parents by row number, from span ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import NO_PARENT, SpanTable

__all__ = ["link_parents"]

_ODD = np.uint64(0x9E3779B97F4A7C15)


def link_parents(table: SpanTable) -> SpanTable:
    """Returns the table with ``parent`` set to the row whose span id is ``parent_id``.

    A parent is looked for in the same trace only. A span that names itself, or is part of or
    below a circle of parents, gets NO_PARENT: whoever walks up a table's parents always ends.
    """
    if len(table) == 0:
        return table
    keys = _key(table.trace_lo, table.span_id)
    order = np.argsort(keys, kind="stable")
    wanted = _key(table.trace_lo, table.parent_id)
    place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
    row = order[place]
    found = (
        (table.parent_id != 0)
        & (table.span_id[row] == table.parent_id)
        & (table.trace_lo[row] == table.trace_lo)
        & (table.trace_hi[row] == table.trace_hi)
    )
    parent = np.where(found, row, NO_PARENT).astype(np.int32)
    parent[_endless(parent)] = NO_PARENT
    return table.with_columns(parent=parent)


def _key(trace_lo: NDArray[np.uint64], span_id: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Ids are unique per trace only. A collision costs a parent, never gives a wrong one:
    # the match is checked against the ids themselves.
    with np.errstate(over="ignore"):
        return span_id ^ (trace_lo * _ODD)


def _endless(parent: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Returns which rows never reach a root, by doubling the length of the jump each round."""
    jump = np.append(parent, np.int32(NO_PARENT))  # row -1 is the end, and stays there
    reach = 1
    while reach < len(parent) and np.any(jump[:-1] != NO_PARENT):
        jump = jump[jump]
        reach *= 2
    if reach < len(parent):
        return np.zeros(len(parent), dtype=np.bool_)
    return jump[:-1] != NO_PARENT
