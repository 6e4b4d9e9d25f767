"""Parts a batch by instance, step and rank."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import njit
from kat_otel.spans import SpanTable

__all__ = ["StepKey", "split_by_step"]


class StepKey(NamedTuple):
    """One step: its trace, within its instance. All ranks derive the same trace id."""

    instance: str
    trace_hi: int
    trace_lo: int


class _Owner(NamedTuple):
    """Whose spans they are: a worker's, or (rank -1) nobody's."""

    instance: str
    rank: int


_NOBODY = _Owner("", -1)


def split_by_step(table: SpanTable) -> tuple[SpanTable, list[tuple[StepKey, int, SpanTable]]]:
    """Returns the spans of no rank, and the others by step and rank, in order of arrival.

    Parents are not linked in the parts: that happens once, when the step is whole. Parts are
    views of the batch (or of one that is put in order): whoever keeps one keeps all of it. Each
    has its own resources alone.
    """
    owners = [_Owner(r.instance, r.rank) if r.rank >= 0 else _NOBODY for r in table.resources]
    number_of = {owner: number for number, owner in enumerate(dict.fromkeys([_NOBODY, *owners]))}
    numbers = np.array([number_of[owner] for owner in owners], np.int64)
    begin: list[int] = _stretches(
        np.ascontiguousarray(table.resource),
        np.ascontiguousarray(table.trace_hi),
        np.ascontiguousarray(table.trace_lo),
        numbers,
    ).tolist()
    groups: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for first, last in pairwise(begin):
        owner = int(numbers[table.resource[first]])
        hi, lo = (int(table.trace_hi[first]), int(table.trace_lo[first])) if owner else (0, 0)
        groups.setdefault((owner, hi, lo), []).append((first, last))
    if len(groups) + 1 < len(begin):  # the spans of a part do not stand together
        stretches = [np.arange(*one) for group in groups.values() for one in group]
        table = table.take(np.concatenate(stretches))
    rows = sorted(table.attributes)
    foreign, parts = _NOTHING, list[tuple[StepKey, int, SpanTable]]()
    of_number = list(number_of)
    first = 0
    for (number, hi, lo), group in groups.items():
        last = first + sum(end - start for start, end in group)
        mine = rows[bisect_left(rows, first) : bisect_left(rows, last)]
        part = _with_own_resources(table.between(first, last, mine))
        if number:
            owner = of_number[number]
            parts.append((StepKey(owner.instance, hi, lo), owner.rank, part))
        else:
            foreign = part
        first = last
    return foreign, parts


_NOTHING = SpanTable.empty()


@njit("int64[::1](int32[::1], uint64[::1], uint64[::1], int64[::1])")
def _stretches(resource: Any, trace_hi: Any, trace_lo: Any, owner: Any) -> NDArray[np.int64]:
    """Where rows of another owner or trace begin, and the end; nobody's traces are all alike."""
    begin = np.empty(len(resource) + 1, np.int64)
    count = 0
    for row in range(len(resource)):
        mine = owner[resource[row]]
        if (
            row == 0
            or mine != owner[resource[row - 1]]
            or (
                mine > 0
                and (trace_lo[row] != trace_lo[row - 1] or trace_hi[row] != trace_hi[row - 1])
            )
        ):
            begin[count] = row
            count += 1
    begin[count] = len(resource)
    return begin[: count + 1].copy()


def _with_own_resources(table: SpanTable) -> SpanTable:
    """Returns the table without resources that none of its spans has."""
    if len(table.resources) == 1:
        return table
    first = table.resource[0]
    if bool((table.resource == first).all()):
        resources = (table.resources[int(first)],)
        return table.with_resources(resources, np.zeros(len(table), np.int32))
    distinct, resource = np.unique(table.resource, return_inverse=True)
    used: list[int] = distinct.tolist()
    resources = tuple([table.resources[number] for number in used])
    return table.with_resources(resources, resource.reshape(-1).astype(np.int32))
