"""Parts a batch by instance, step and rank."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kat_otel.spans import UNKNOWN, SpanTable

__all__ = ["StepKey", "split_by_step"]


class StepKey(NamedTuple):
    """One step: its trace, within its instance. All ranks derive the same trace id."""

    instance: str
    trace_hi: int
    trace_lo: int


def split_by_step(table: SpanTable) -> tuple[SpanTable, list[tuple[StepKey, int, SpanTable]]]:
    """Returns the spans of no rank, and the others by step and rank, in order of arrival.

    Parents are not linked in the parts: that happens once, when the step is whole. A batch of
    one rank's step is its only part, uncopied.
    """
    names = [resource.instance for resource in table.resources]
    ranks = [resource.rank for resource in table.resources]
    worker_of = {
        worker: n for n, worker in enumerate(dict.fromkeys(zip(names, ranks, strict=True)))
    }
    worker = np.array([worker_of[w] for w in zip(names, ranks, strict=True)] or [0])
    if len(worker_of) == 1 and ranks[0] >= 0 and _one_trace(table):
        key = StepKey(names[0], int(table.trace_hi[0]), int(table.trace_lo[0]))
        return _NOTHING, [(key, ranks[0], table)]  # the batch of one rank's step, as workers send
    rank = np.array(ranks or [UNKNOWN])[table.resource] if len(table) else np.empty(0, np.int64)
    foreign = table.take(rank < 0)
    rows = np.flatnonzero(rank >= 0)
    if len(rows) == 0:
        return foreign, []
    columns = [worker[table.resource[rows]], table.trace_hi[rows], table.trace_lo[rows]]
    new = np.zeros(len(rows), dtype=np.bool_)
    new[0] = True
    for column in columns:
        new[1:] |= column[1:] != column[:-1]
    begin = np.flatnonzero(new)  # stretches of rows of one rank and step, mostly long
    order = np.lexsort([column[begin] for column in columns])
    changes = np.zeros(len(order), dtype=np.bool_)
    changes[0] = True
    for column in columns:
        values = column[begin][order]
        changes[1:] |= values[1:] != values[:-1]
    end = np.append(begin[1:], len(rows))
    groups = np.split(order, np.flatnonzero(changes)[1:])
    groups.sort(key=lambda group: int(begin[group[0]]))  # lexsort is stable: the first came first
    parts: list[tuple[StepKey, int, SpanTable]] = []
    for group in groups:
        stretches = [rows[begin[one] : end[one]] for one in group.tolist()]
        mine = np.concatenate(stretches) if len(stretches) > 1 else stretches[0]
        row = int(mine[0])
        key = StepKey(
            table.resources[int(table.resource[row])].instance,
            int(table.trace_hi[row]),
            int(table.trace_lo[row]),
        )
        parts.append((key, int(rank[row]), table.take(mine)))
    return foreign, parts


_NOTHING = SpanTable.empty()


def _one_trace(table: SpanTable) -> bool:
    if len(table) == 0:
        return False
    lo, hi = table.trace_lo, table.trace_hi
    return bool((lo == lo[0]).all() and (hi == hi[0]).all())
