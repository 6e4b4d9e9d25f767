"""The digests of many steps of an instance, read together and sorted by what can be compared.

One pass over the attributes, then arrays: what a rank and step costs here, a fleet pays for all
of its ranks and steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kat_otel import semconv
from kat_otel.digest import decode_checked, read_headers
from kat_otel.errors import DecodeError
from kat_otel.spans import UNKNOWN, SpanKind, SpanTable

__all__ = [
    "DigestKind",
    "DigestSteps",
    "Group",
    "Groups",
    "groups_of",
    "read_steps",
    "without_broken",
]

Int64 = NDArray[np.int64]


class DigestKind(NamedTuple):
    """What digests have in common that are compared with each other, and with earlier ones."""

    stage: int
    order: int
    records: int
    merged: int
    work: int  # the bucket of their thread blocks
    ranks: tuple[int, ...]


class Group(NamedTuple):
    """The digests of one kind in one step: ``step`` by place, digests from ``first`` on."""

    step: int
    first: int


@dataclass(frozen=True, slots=True, eq=False)
class DigestSteps:
    """The digests of ``S`` steps that can be read, ``n`` in all, by step and rank.

    Attributes:
        table: all spans of the steps.
        bounds: rows of step ``s`` are ``bounds[s]`` to ``bounds[s + 1]``, int64 ``(S + 1,)``.
        step: the step of each digest by its place, int64 ``(n,)``; never descending.
        rank: its rank, int64 ``(n,)``; ascending within a step.
        row: its span, int64 ``(n,)``.
        digests, headers: its bytes, and its header, dtype HEADER ``(n,)``.
        wanted: ranks that each step says it has, int64 ``(S,)``.
        broken: what could not be read, by step.
        names: what the spans say of the hashes of kernel families.
    """

    table: SpanTable
    bounds: Int64
    step: Int64
    rank: Int64
    row: Int64
    digests: list[bytes]
    headers: NDArray[Any]
    wanted: Int64
    broken: dict[int, list[str]]
    names: list[str]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def there(self) -> Int64:
        """How many digests each step has, int64 ``(S,)``."""
        return np.bincount(self.step, minlength=len(self))

    def missing(self, least: float) -> NDArray[np.bool_]:
        """Returns which steps have digests of less than this share of their ranks, or of none."""
        there = self.there
        return (there == 0) | (there < least * self.wanted)

    def take(self, kept: NDArray[np.bool_]) -> DigestSteps:
        """Returns the steps with these digests only, bool ``(n,)``."""
        return self if kept.all() else self.at(np.flatnonzero(kept))

    def at(self, places: Int64) -> DigestSteps:
        """Returns the steps with the digests in these places, in their order."""
        return replace(
            self,
            step=self.step[places],
            rank=self.rank[places],
            row=self.row[places],
            digests=[self.digests[place] for place in places.tolist()],
            headers=self.headers[places] if len(self.headers) else self.headers,  # read later
        )


@dataclass(frozen=True, slots=True)
class Groups:
    """Digests in the order of steps, kinds and ranks, and where each kind has its groups.

    Attributes:
        digests: as sorted.
        of_kind: the groups of each kind, in the order of their steps.
        of_step: how many groups each step has, int64 ``(S,)``.
        alone: per step the ranks without a peer; steps without such are left out.
    """

    digests: DigestSteps
    of_kind: dict[DigestKind, list[Group]]
    of_step: Int64
    alone: dict[int, list[int]]


def read_steps(table: SpanTable, bounds: Sequence[int]) -> DigestSteps:
    """Reads the digests of consecutive steps.

    Args:
        table: their spans, step by step.
        bounds: the first row of each step, and the number of rows.
    """
    edges = np.array(bounds, np.int64)
    rows: list[int] = []
    digests: list[bytes] = []
    sizes = np.zeros(len(table), np.int64)
    names: list[str] = []
    worker_step: list[bool] = (table.kind == SpanKind.WORKER_STEP.value).tolist()
    for row, said in table.attributes.items():
        size, data = said.get(semconv.GROUP_SIZE), said.get(semconv.DIGEST)
        if isinstance(size, int):
            sizes[row] = size
        if isinstance(data, bytes) and worker_step[row]:
            rows.append(row)
            digests.append(data)
        if semconv.DIGEST_NAMES in said and isinstance(text := said[semconv.DIGEST_NAMES], str):
            names.append(text)
    row = np.array(rows, np.int64)
    ranks = np.array([r.rank for r in table.resources] or [UNKNOWN], np.int64)
    step = np.searchsorted(edges, row, side="right") - 1
    rank = ranks[table.resource[row]]
    read = DigestSteps(
        table, edges, step, rank, row, digests, np.empty(0), _wanted(table, edges, sizes), {}, names
    )
    return _checked(_sorted(read))


def _sorted(read: DigestSteps) -> DigestSteps:
    """Returns the digests by step, rank and row."""
    place = read.step << 33 | (read.rank - UNKNOWN) << 1
    place[1:] |= read.row[1:] < read.row[:-1]  # only to see that rows ascend, too
    if (place[1:] > place[:-1]).all():
        return read
    return read.at(np.lexsort((read.row, read.rank, read.step)))


def _checked(read: DigestSteps) -> DigestSteps:
    """Returns the digests that can be read, of each rank and step the first."""
    headers, wrong = read_headers(read.digests)
    read = _without(replace(read, headers=headers), wrong)
    again = (read.step[1:] == read.step[:-1]) & (read.rank[1:] == read.rank[:-1])
    return read.take(~np.concatenate([[False], again])) if again.any() else read


def _without(read: DigestSteps, wrong: dict[int, DecodeError]) -> DigestSteps:
    if not wrong:
        return read
    broken = defaultdict(list, {step: [*texts] for step, texts in read.broken.items()})
    kept = np.ones(len(read.digests), np.bool_)
    for at, error in sorted(wrong.items()):
        kept[at] = False
        broken[int(read.step[at])].append(f"rank {read.rank[at]}: {error}")
    return replace(read.take(kept), broken=dict(broken))


def without_broken(read: DigestSteps) -> DigestSteps:
    """Returns the digests without those that contradict themselves behind their header."""
    wrong: dict[int, DecodeError] = {}
    for at, data in enumerate(read.digests):
        try:
            decode_checked(data)
        except DecodeError as error:
            wrong[at] = error
    return _without(read, wrong)


def _wanted(table: SpanTable, edges: Int64, sizes: Int64) -> Int64:
    """Returns how many ranks each step says it has; 0 if it does not say."""
    worlds = np.array([r.world_size for r in table.resources] or [0], np.int64)
    if not len(sizes):
        return np.zeros(len(edges) - 1, np.int64)
    said = np.maximum(sizes, worlds[table.resource])
    most = np.maximum.reduceat(said, np.minimum(edges[:-1], len(said) - 1))
    return np.where(edges[1:] > edges[:-1], np.maximum(most, 0), 0)


def groups_of(read: DigestSteps) -> Groups:
    """Returns the digests sorted by what can be compared."""
    headers = read.headers
    stages = np.array([r.pp for r in read.table.resources] or [UNKNOWN], np.int64)
    columns = [
        stages[read.table.resource[read.row]],
        *(headers[name].astype(np.int64) for name in ("order", "records", "merged")),
    ]
    new = np.ones(len(read.row), np.bool_)
    new[1:] = read.step[1:] != read.step[:-1]
    if any((column[1:] != column[:-1]).any() for column in columns):
        order = np.lexsort((read.rank, *reversed(columns), read.step))
        read, columns = read.at(order), [column[order] for column in columns]
        headers = read.headers
        for column in columns:
            new[1:] |= column[1:] != column[:-1]
    first = np.flatnonzero(new)
    if not len(first):
        return Groups(read, {}, np.zeros(len(read), np.int64), {})
    size = np.diff(np.append(first, len(new)))
    blocks = np.add.reduceat(headers["blocks"].astype(np.float64), first) / size
    bucket = np.rint(4 * np.log2(np.maximum(blocks, 1.0))).astype(np.int64)
    of_kind: defaultdict[DigestKind, list[Group]] = defaultdict(list)
    ranks = _tuples(read.rank, first, size)
    said = zip(
        read.step[first].tolist(),
        first.tolist(),
        *(column[first].tolist() for column in columns),
        bucket.tolist(),
        ranks,
        strict=True,
    )
    for step, begin, *kind in said:
        of_kind[DigestKind._make(kind)].append(Group(step, begin))
    alone: defaultdict[int, list[int]] = defaultdict(list)
    for at in np.flatnonzero(size == 1).tolist():
        alone[int(read.step[first[at]])].append(int(read.rank[first[at]]))
    of_step = np.bincount(read.step[first], minlength=len(read))
    return Groups(read, of_kind, of_step, {step: sorted(some) for step, some in alone.items()})


def _tuples(rank: Int64, first: Int64, size: Int64) -> list[tuple[int, ...]]:
    """Returns the ranks of each group; groups of the same ranks share one tuple."""
    known: dict[bytes, tuple[int, ...]] = {}
    found: list[tuple[int, ...]] = []
    for begin, count in zip(first.tolist(), size.tolist(), strict=True):
        some = rank[begin : begin + count]
        key = some.tobytes()
        ranks = known.get(key)
        if ranks is None:
            ranks = known[key] = tuple(some.tolist())
        found.append(ranks)
    return found
