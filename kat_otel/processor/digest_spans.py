"""Worker steps that come alone, with a digest: what most of a fleet's spans are.

They are not copied out of their batch one by one: a step keeps the places of its spans, and the
spans of many steps become one table when they are judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kat_otel import semconv
from kat_otel.otlp import link_parents
from kat_otel.processor.merge import merge_resources
from kat_otel.processor.split import StepKey
from kat_otel.spans import COLUMNS, NO_PARENT, Resource, SpanKind, SpanTable, concat

__all__ = ["DigestSpan", "DigestSpans", "digests_in", "gathered", "joined"]

_SPAN_BYTES = sum(column.dtype.itemsize for column in COLUMNS.values())
_SPARSE = 4
_READ = ("trace_hi", "trace_lo", "span_id", "kind", "step", "resource")
_WORKER_STEP = SpanKind.WORKER_STEP.value
_NOTHING = SpanTable.empty()


class DigestSpan(NamedTuple):
    """The one span of a rank's step: row ``row`` of ``table``.

    Attributes:
        key, number: of its step.
        group_size, world_size: ranks that the step has, 0 if not said.
        host: of the rank, ``""`` if it names none.
        nbytes: what it holds in memory, about.
    """

    key: StepKey
    number: int
    rank: int
    host: str
    span_id: int
    group_size: int
    world_size: int
    nbytes: int
    table: SpanTable
    row: int

    def taken(self) -> SpanTable:
        """Returns the span as a table of its own."""
        return self.table.take(np.array([self.row]))


@dataclass(frozen=True, slots=True)
class DigestSpans:
    """A step whose ranks sent a digest and nothing else."""

    spans: Sequence[DigestSpan]

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def hosts(self) -> dict[int, str]:
        """The host of each rank, ``""`` where it names none."""
        return {span.rank: span.host for span in self.spans}

    def table(self) -> SpanTable:
        """Returns the step's spans, parents linked."""
        return gathered(self.spans)


def digests_in(table: SpanTable) -> tuple[list[DigestSpan], SpanTable]:
    """Returns the worker steps with a digest that are all of their rank's step, and the rest."""
    found: list[tuple[int, int, int]] = []
    for row, said in table.attributes.items():
        data, count = said.get(semconv.DIGEST), said.get(semconv.SPAN_COUNT)
        if count == 1 and type(count) is int and isinstance(data, bytes):
            group = said.get(semconv.GROUP_SIZE)
            found.append((row, len(data), group if type(group) is int else 0))
    if not found:
        return [], table
    rows = np.array([row for row, _, _ in found], np.int64)
    kept = table
    if len(rows) * _SPARSE < len(table):  # a few rows must not keep a large table alive
        rows.sort()
        kept = table.take(rows)
        size = {row: (size, group) for row, size, group in found}
        found = [(at, *size[row]) for at, row in enumerate(rows.tolist())]
    spans = _spans(kept, found)
    if len(spans) == len(table):
        return spans, _NOTHING
    rest = np.ones(len(table), np.bool_)
    taken = np.array([span.row for span in spans], np.int64)
    rest[taken if kept is table else rows[taken]] = False
    return spans, table.take(rest)


def _spans(table: SpanTable, found: Sequence[tuple[int, int, int]]) -> list[DigestSpan]:
    """Returns those of the rows that are worker steps of a rank."""
    columns: list[list[int]] = [getattr(table, name).tolist() for name in _READ]
    high, low, ids, kinds, numbers, resources = columns
    workers = table.resources
    spans: list[DigestSpan] = []
    for row, size, group in found:
        worker = workers[resources[row]]
        if kinds[row] == _WORKER_STEP and worker.rank >= 0:
            spans.append(
                DigestSpan(
                    StepKey(worker.instance, high[row], low[row]),
                    numbers[row],
                    worker.rank,
                    worker.host,
                    ids[row],
                    group,
                    max(worker.world_size, 0),
                    _SPAN_BYTES + size,
                    table,
                    row,
                )
            )
    return spans


def gathered(spans: Sequence[DigestSpan]) -> SpanTable:
    """Returns the spans as one table, equal resources said once and parents linked."""
    tables = list({id(span.table): span.table for span in spans}.values())
    if len({id(table.strings) for table in tables}) > 1:
        rows = [span.taken() for span in spans]
        return link_parents(merge_resources(concat(rows)))
    first, count = {}, 0
    resources: dict[int, Resource] = {}  # senders say the same again and again: one object
    place: dict[int, int] = {}
    moved: list[NDArray[np.int32]] = []
    for table in tables:
        first[id(table)] = count
        count += len(table)
        for resource in table.resources:
            if id(resource) not in place:
                place[id(resource)] = len(place)
                resources[id(resource)] = resource
        at = np.array([place[id(resource)] for resource in table.resources], np.int32)
        moved.append(at[table.resource])
    index = np.array([first[id(span.table)] + span.row for span in spans], np.int64)
    columns: dict[str, NDArray[Any]] = {
        name: np.concatenate([getattr(table, name) for table in tables])[index]
        for name in _GATHERED
    }
    columns["resource"] = np.concatenate(moved)[index]
    columns["parent"] = np.full(len(spans), NO_PARENT, np.int32)
    attributes = {at: span.table.attributes[span.row] for at, span in enumerate(spans)}
    table = SpanTable(
        tables[0].strings, tuple(resources.values()), attributes=attributes, **columns
    )
    used = len(np.unique(columns["resource"]))
    if used < len(resources) or used > len({span.rank for span in spans}):
        table = merge_resources(table)
    return link_parents(table)


_GATHERED = tuple(name for name in COLUMNS if name not in {"resource", "parent"})


def joined(steps: Iterable[DigestSpans]) -> tuple[SpanTable, list[int]]:
    """Returns the spans of steps as one table, and the first row of each; then how many rows."""
    spans: list[DigestSpan] = []
    bounds = [0]
    for step in steps:
        spans += step.spans
        bounds.append(len(spans))
    return gathered(spans), bounds
