"""Parents by row number, from span ids."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import inline, njit
from kat_otel.spans import NO_PARENT, SpanTable

__all__ = ["link_parents", "parents_in_step"]

_SEED = secrets.randbits(64) | 1
"""Spreads the ids over the hash table; unknown to senders, who choose the ids."""

_FEW = 8
"""Spans of a stretch whose parents are looked for one by one; of more by a hash table."""

_NEAR = 5
"""Rows behind the last parent that are looked at for the next."""

_DEEP = 64
"""Levels that are walked up one by one; a deeper tree is looked at as a whole."""


def link_parents(table: SpanTable) -> SpanTable:
    """Returns the table with ``parent`` set to the row whose span id is ``parent_id``.

    A parent is looked for in the same trace only, and is the first row with its id (an id that
    several workers use is taken from the span's own worker, if its spans stand together). A
    span that names itself, or is part of or below a circle of parents, gets NO_PARENT: whoever
    walks up a table's parents always ends.
    """
    if len(table) == 0:
        return table
    hi, lo, own, wanted, resource = (
        column if column.flags.writeable else column.copy()
        for column in map(
            np.ascontiguousarray,
            (table.trace_hi, table.trace_lo, table.span_id, table.parent_id, table.resource),
        )
    )
    parent = np.full(len(table), NO_PARENT, np.int32)
    ids = (hi, lo, own, wanted)
    edges = np.flatnonzero(resource[1:] != resource[:-1]) + 1
    bounds = _stretches(np.concatenate([[0], edges, [len(table)]]))
    _link(ids, bounds, parent, np.uint64(_SEED))
    if len(bounds) > 2:
        _link_rest(ids, parent, np.uint64(_SEED))
    return table.with_columns(parent=_ending(parent))


def parents_in_step(
    span_id: NDArray[np.uint64], parent_id: NDArray[np.uint64], bounds: Sequence[int]
) -> NDArray[np.int32]:
    """Returns what :func:`link_parents` sets, for the spans of one trace.

    Args:
        span_id: ids; none stands twice among the spans of a worker.
        parent_id: ids of the parents, 0 if none.
        bounds: where the spans of each worker begin, and the end of the last.
    """
    stretches = _stretches(np.array(bounds, np.int64))
    parent, deep = _linked(span_id, parent_id, stretches, np.uint64(_SEED))
    if deep:
        parent[_endless(parent)] = NO_PARENT
    return parent


def _stretches(bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where rows of another worker begin, and the end, if they mostly stand together; else all.

    A rank's spans do, and the hash table of one rank's ids fits the cache.
    """
    apart = (len(bounds) - 2) * 16 <= int(bounds[-1])
    return bounds if apart else bounds[[0, -1]]


def _ending(parent: NDArray[np.int32]) -> NDArray[np.int32]:
    """Takes away, in place, the parents of spans whose way up never ends."""
    if _is_deep(parent, _DEEP):
        parent[_endless(parent)] = NO_PARENT
    return parent


@inline
def _hash(trace_lo: Any, span_id: Any, seed: Any, shift: Any) -> Any:
    mixed = (span_id ^ trace_lo) * seed
    return np.int64(((mixed ^ (mixed >> np.uint64(32))) * seed) >> shift)


@inline
def _bits(count: int) -> int:
    """Size of a hash table that is at most half full, as a power of two."""
    bits = 4
    while (1 << bits) < 2 * count:
        bits += 1
    return bits


@njit("void(UniTuple(uint64[::1], 4), int64[::1], int32[::1], uint64)")
def _link(ids: Any, bounds: Any, parent: Any, seed: Any) -> None:
    """Sets ``parent`` where it stands within the same stretch of rows."""
    trace_hi, trace_lo, span_id, parent_id = ids
    longest = 0
    for at in range(len(bounds) - 1):
        longest = max(longest, bounds[at + 1] - bounds[at])
    slots = np.empty(1 << _bits(longest), np.int32)
    for number in range(len(bounds) - 1):
        begin, end = bounds[number], bounds[number + 1]
        bits = _bits(end - begin)
        shift, mask = np.uint64(64 - bits), (1 << bits) - 1
        slots[: 1 << bits] = -1
        for row in range(begin, end):
            at = _hash(trace_lo[row], span_id[row], seed, shift)
            while slots[at] >= 0:
                other = slots[at]
                if (
                    span_id[other] == span_id[row]
                    and trace_lo[other] == trace_lo[row]
                    and trace_hi[other] == trace_hi[row]
                ):
                    break  # the first row of an id is its span
                at = (at + 1) & mask
            if slots[at] < 0:
                slots[at] = row
        for row in range(begin, end):
            if parent_id[row] == 0:
                continue
            at = _hash(trace_lo[row], parent_id[row], seed, shift)
            while slots[at] >= 0:
                other = slots[at]
                if (
                    span_id[other] == parent_id[row]
                    and trace_lo[other] == trace_lo[row]
                    and trace_hi[other] == trace_hi[row]
                ):
                    parent[row] = other
                    break
                at = (at + 1) & mask


@njit("void(UniTuple(uint64[::1], 4), int64[::1], int32[::1], uint64)")
def _link_near(ids: Any, bounds: Any, parent: Any, seed: Any) -> None:
    """As :func:`_link`, of one trace and where no id stands twice within a stretch.

    Spans are written as a tree or in the order of their starts: most have the parent of the span
    before, that very span, the parent's parent, or one a little behind the last parent, as kernels
    behind their launches. What is not there is looked for.
    """
    span_id, parent_id = ids[2], ids[3]
    missing = np.empty(_FEW, np.int64)
    for number in range(len(bounds) - 1):
        begin, end = bounds[number], bounds[number + 1]
        last, count = begin, 0
        for row in range(begin, end):
            wanted = parent_id[row]
            if wanted == 0:
                continue
            above = parent[last]
            if span_id[last] == wanted:
                parent[row] = last
            elif row > begin and span_id[row - 1] == wanted:
                last = row - 1
                parent[row] = last
            elif above >= 0 and span_id[above] == wanted:
                last = above
                parent[row] = last
            else:
                at, most = last + 1, min(last + _NEAR, end)
                while at < most and span_id[at] != wanted:
                    at += 1
                if at < most:
                    last = at
                    parent[row] = last
                    continue
                if count == _FEW:
                    break
                missing[count] = row
                count += 1
        else:
            for at in range(count):
                row = missing[at]
                for other in range(begin, end):
                    if span_id[other] == parent_id[row]:
                        parent[row] = other
                        break
            continue
        _link(ids, bounds[number : number + 2], parent, seed)


@njit("void(UniTuple(uint64[::1], 4), int32[::1], uint64)")
def _link_rest(ids: Any, parent: Any, seed: Any) -> None:
    """Sets ``parent`` of those still without, who are few, from all rows.

    The hash table holds what is wanted; rows that want the same are chained.
    """
    trace_hi, trace_lo, span_id, parent_id = ids
    missing = 0
    for row in range(len(parent)):
        missing += parent[row] < 0 and parent_id[row] != 0
    if missing == 0:
        return
    rows, after = np.empty(missing, np.int32), np.full(missing, -1, np.int32)
    bits = _bits(missing)
    shift, mask = np.uint64(64 - bits), (1 << bits) - 1
    slots = np.full(1 << bits, -1, np.int32)
    count = 0
    for row in range(len(parent)):
        if parent[row] >= 0 or parent_id[row] == 0:
            continue
        rows[count] = row
        at = _hash(trace_lo[row], parent_id[row], seed, shift)
        while slots[at] >= 0:
            other = rows[slots[at]]
            if (
                parent_id[other] == parent_id[row]
                and trace_lo[other] == trace_lo[row]
                and trace_hi[other] == trace_hi[row]
            ):
                after[count] = slots[at]
                break
            at = (at + 1) & mask
        slots[at] = count
        count += 1
    for row in range(len(parent)):
        at = _hash(trace_lo[row], span_id[row], seed, shift)
        while slots[at] >= 0:
            other = rows[slots[at]]
            if (
                parent_id[other] == span_id[row]
                and trace_lo[other] == trace_lo[row]
                and trace_hi[other] == trace_hi[row]
            ):
                one = slots[at]
                while one >= 0 and parent[rows[one]] < 0:
                    parent[rows[one]] = row
                    one = after[one]
                break
            at = (at + 1) & mask


@njit("boolean(int32[::1], int64)")
def _is_deep(parent: Any, most: int) -> bool:
    """Returns whether a row's way to its root is longer than ``most``, or has no end."""
    for row in range(len(parent)):
        at, level = parent[row], 0
        while at >= 0:
            level += 1
            if level > most:
                return True
            at = parent[at]
    return False


@njit("Tuple((int32[::1], boolean))(uint64[::1], uint64[::1], int64[::1], uint64)")
def _linked(span_id: Any, parent_id: Any, bounds: Any, seed: Any) -> Any:
    """The parents of one trace's spans, and whether :func:`_is_deep` says so of them."""
    parent = np.full(len(span_id), NO_PARENT, np.int32)
    trace = np.zeros(len(span_id), np.uint64)
    ids = (trace, trace, span_id, parent_id)
    if len(bounds) > 2:
        _link_near(ids, bounds, parent, seed)
        _link_rest(ids, parent, seed)
    else:
        _link(ids, bounds, parent, seed)
    return parent, _is_deep(parent, _DEEP)


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
