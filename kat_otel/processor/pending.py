"""A step under assembly: what came of each rank, and whether that is all of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel import semconv
from kat_otel.otlp import link_parents
from kat_otel.processor.digest_spans import DigestSpan, DigestSpans, gathered
from kat_otel.processor.ids import merge_ids
from kat_otel.processor.merge import merge_resources
from kat_otel.processor.split import StepKey
from kat_otel.processor.whole import whole_step
from kat_otel.spans import COLUMNS, UNKNOWN, SpanKind, SpanTable, concat

__all__ = ["Ids", "Pending"]

Ids = NDArray[np.uint64]


@dataclass(slots=True)
class Progress:
    """What came of one rank."""

    ids: Ids = field(default_factory=lambda: np.empty(0, np.uint64))
    expected: int = -1  # -1: its worker step has not come; 0: came and said no count

    @property
    def closed(self) -> bool:
        """Whether its worker step is here, and all the spans that it tells of."""
        return 0 <= self.expected <= len(self.ids)


@dataclass(slots=True)
class Pending:
    """A step under assembly."""

    key: StepKey
    first_seen: float
    last_seen: float = 0.0
    number: int = UNKNOWN
    group_size: int = 0
    world_size: int = 0
    complete_since: float = math.inf
    tables: list[SpanTable] = field(default_factory=list[SpanTable])
    ranks: dict[int, Progress] = field(default_factory=dict[int, Progress])
    digests: dict[int, DigestSpan] = field(default_factory=dict[int, DigestSpan])
    """By rank, those of which one span came that says that it is all."""
    receipts: dict[int, None] = field(default_factory=dict[int, None])  # an ordered set
    closed: int = 0  # ranks that closed the step; counted on, as there may be thousands
    spans: int = 0
    size: int = 0

    def add(self, table: SpanTable, rank: int, now: float) -> int:
        """Adds spans of one rank and returns how many of them had come before."""
        if rank in self.digests:  # it was not all
            self._part_digest(rank)
        progress = self.ranks.get(rank) or Progress()
        repeated = 0
        merged, unique = merge_ids(progress.ids, np.sort(table.span_id))
        if not unique:
            ids, first = np.unique(table.span_id, return_index=True)
            new = first[~np.isin(ids, progress.ids, assume_unique=True)]
            repeated = len(table) - len(new)
            table = table.take(np.sort(new))
        if len(table) == 0:
            return repeated
        # All that may fail comes before anything changes: the spans can then leave on their own.
        used = [0]
        if len(table.resources) > 1:
            used = np.flatnonzero(np.bincount(table.resource)).tolist()
        world_size = max(self.world_size, *(table.resources[i].world_size for i in used))
        size = table.nbytes + _said_bytes(table)
        was_closed = progress.closed
        self._read_worker_step(table, progress)
        self.ranks[rank] = progress
        progress.ids = merged
        self.closed += progress.closed - was_closed
        self.world_size = world_size
        self.tables.append(table)
        self.last_seen = now
        self.spans += len(table)
        self.size += size
        if self.complete and self.complete_since == math.inf:
            self.complete_since = now
        return repeated

    def fold(self, number: int) -> None:
        """Takes a part of its own into less memory, away from the batch that it came in."""
        if number < len(self.tables):  # else the step was judged
            table = self.tables[number]
            self.tables[number] = _folded(table)
            self.size += self.tables[number].nbytes - table.nbytes

    def knows(self, rank: int) -> bool:
        """Returns whether anything came of a rank."""
        return rank in self.digests or rank in self.ranks

    def add_digest(self, span: DigestSpan, now: float) -> None:
        """Adds the span of a rank of which nothing came before, and which sends no other."""
        self.digests[span.rank] = span
        self.closed += 1
        self.group_size = max(self.group_size, span.group_size)
        self.world_size = max(self.world_size, span.world_size)
        self.last_seen = now
        self.spans += 1
        self.size += span.nbytes
        if self.complete and self.complete_since == math.inf:
            self.complete_since = now

    def _part_digest(self, rank: int) -> None:
        """Makes a rank one of which any spans may come."""
        span = self.digests.pop(rank)
        self.ranks[rank] = Progress(np.array([span.span_id], np.uint64), expected=1)
        self.tables.append(span.taken())

    def ids(self) -> dict[int, Ids]:
        """Returns the ids that came, by rank, sorted."""
        own = np.array([span.span_id for span in self.digests.values()], np.uint64)
        ids = {rank: own[at : at + 1] for at, rank in enumerate(self.digests)}
        ids.update((rank, progress.ids) for rank, progress in self.ranks.items())
        return ids

    def _read_worker_step(self, table: SpanTable, progress: Progress) -> None:
        for row in np.flatnonzero(table.kind == SpanKind.WORKER_STEP.value).tolist():
            said = table.attributes.get(row, {})
            count, group = said.get(semconv.SPAN_COUNT), said.get(semconv.GROUP_SIZE)
            progress.expected = max(progress.expected, count if type(count) is int else 0)
            if type(group) is int:
                self.group_size = max(self.group_size, group)

    @property
    def wanted(self) -> int:
        """Ranks that must close the step; 0 if nobody said."""
        return self.group_size or self.world_size

    @property
    def complete(self) -> bool:
        """Whether every rank has closed the step."""
        return 0 < self.wanted <= self.closed

    def missing_ranks(self) -> tuple[int, ...]:
        """Ranks that came and did not close, and those of the world that never came."""
        open_ranks = {rank for rank, progress in self.ranks.items() if not progress.closed}
        if self.wanted == self.world_size and self.wanted < 100_000:
            open_ranks |= set(range(self.wanted)) - set(self.ranks) - set(self.digests)
        return tuple(sorted(open_ranks))

    def parts(self) -> list[SpanTable]:
        """Returns its spans as they came."""
        return [*self.tables, *(span.taken() for span in self.digests.values())]

    def digest_spans(self) -> DigestSpans | None:
        """Returns the step, by rank, if digests are all that came; else None."""
        if self.tables or not self.digests:
            return None
        return DigestSpans([self.digests[rank] for rank in sorted(self.digests)])

    def whole(self) -> SpanTable:
        """Returns all its spans in one table: a resource a worker, and parents linked."""
        whole = None if self.digests else whole_step(self.tables)
        return link_parents(merge_resources(self._table())) if whole is None else whole

    def _table(self) -> SpanTable:
        """Returns all its spans in one table; resources are those of the batches."""
        more = [gathered(list(self.digests.values()))] if self.digests else []
        tables = [*self.tables, *more]
        whole = concat(tables)
        if len(tables) > 1:
            return whole
        return whole.with_columns(**{name: getattr(whole, name) for name in COLUMNS})


def _said_bytes(table: SpanTable) -> int:
    """About the memory of attributes without a column: kernel spans have none."""
    return sum(
        _ENTRY_BYTES + (len(value) if isinstance(value, str | bytes) else 0)
        for said in table.attributes.values()
        for value in said.values()
    )


_ENTRY_BYTES = 160
"""Of a dictionary's entry with a small value, its share of the dictionary included."""


def _folded(table: SpanTable) -> SpanTable:
    """Returns the table with columns of one value kept as that value alone, in its own memory.

    A rank's spans of a step share trace, step, resource, and much else.
    """
    columns: dict[str, NDArray[Any]] = {}
    for name in COLUMNS:
        values: NDArray[Any] = getattr(table, name)
        first, count = values[0], len(values)
        if (
            count > 1
            and first == values[-1]
            and first == values[count // 2]
            and bool((values == first).all())
        ):
            columns[name] = np.broadcast_to(values[:1].copy(), values.shape)
        elif values.base is not None:
            columns[name] = values.copy()
    return replace(table, **columns)
