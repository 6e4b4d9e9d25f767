"""Parts a batch by instance, step and rank."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kat_otel.spans import SpanTable

__all__ = ["StepKey", "split_by_step"]


class StepKey(NamedTuple):
    """One step: its trace, within its instance. All ranks derive the same trace id."""

    instance: str
    trace_hi: int
    trace_lo: int


def split_by_step(table: SpanTable) -> tuple[SpanTable, list[tuple[StepKey, int, SpanTable]]]:
    """Returns the spans of no rank, and the others by step and rank, in order of arrival.

    Parents are not linked in the parts: that happens once, when the step is whole.
    """
    ranks = table.rank
    foreign = table.take(ranks < 0)
    names = [resource.instance for resource in table.resources]
    number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
    instance = np.array([number_of[name] for name in names] or [0], dtype=np.int64)
    rows = np.flatnonzero(ranks >= 0)
    if len(rows) == 0:
        return foreign, []
    columns = [
        instance[table.resource[rows]],
        table.trace_hi[rows],
        table.trace_lo[rows],
        ranks[rows],
    ]
    order = np.lexsort(columns[::-1])
    changes = np.zeros(len(rows), dtype=np.bool_)
    changes[0] = True
    for column in columns:
        values = column[order]
        changes[1:] |= values[1:] != values[:-1]
    groups = np.split(rows[order], np.flatnonzero(changes)[1:])
    groups.sort(key=lambda group: int(group[0]))  # lexsort is stable: the first came first
    parts: list[tuple[StepKey, int, SpanTable]] = []
    for group in groups:
        row = int(group[0])
        key = StepKey(
            table.resources[int(table.resource[row])].instance,
            int(table.trace_hi[row]),
            int(table.trace_lo[row]),
        )
        parts.append((key, int(ranks[row]), table.take(group)))
    return foreign, parts
