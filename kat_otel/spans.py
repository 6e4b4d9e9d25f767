"""SpanTable: the columns of a forest of spans, the one type that everything passes on.

Readers and the wire decoder make it, TTAD judges it, the reducer and the report
read it. One row is one span; strings are interned once per table; whatever is
the same for all spans of a worker (rank, device, host) is said once, in a
:class:`Resource`. Times are Unix nanoseconds in int64, which lasts until 2262.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COLUMNS",
    "NO_PARENT",
    "UNKNOWN",
    "Resource",
    "SpanKind",
    "SpanTable",
    "SpanTableBuilder",
    "StringTable",
    "concat",
    "uninitialised",
]

UNKNOWN = -1
"""Fill of every integer column whose value the source did not say."""

NO_PARENT = -1
"""``parent`` of a span that has none in this table."""

AttributeValue = str | bool | int | float | bytes
Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
UInt64 = NDArray[np.uint64]
UInt8 = NDArray[np.uint8]


class SpanKind(IntEnum):
    """What a span stands for: step > worker step > host operation > launch > GPU work."""

    OTHER = 0
    STEP = 1
    WORKER_STEP = 2
    HOST_OP = 3
    LAUNCH = 4
    SYNC = 5
    KERNEL = 6
    MEMCPY = 7
    MEMSET = 8
    COLLECTIVE = 9

    @property
    def on_gpu(self) -> bool:
        """Whether spans of this kind occupy a GPU stream."""
        return self >= SpanKind.KERNEL


@dataclass(frozen=True, slots=True)
class Resource:
    """The worker that emitted a span: what OTLP calls its resource.

    Attributes:
        rank: global rank in the instance; ``UNKNOWN`` if the source never said.
        world_size: ranks of the instance; ``UNKNOWN`` if not said.
        instance: ``kat.instance.id``, or ``""`` for files.
        device: CUDA device ordinal on the host; ``UNKNOWN`` if not said.
        host: host name, or ``""``.
        hardware_id: ``hw.id``, the GPU's uuid, or ``""``.
        tp, pp, dp, ep: coordinates in the parallel layout; ``UNKNOWN`` if not said.
        resolution_ns: smallest time difference the source's clock can tell.
        source: the file or peer it came from, for messages.
        attributes: every other resource attribute, kept for forwarding.
    """

    rank: int = UNKNOWN
    world_size: int = UNKNOWN
    instance: str = ""
    device: int = UNKNOWN
    host: str = ""
    hardware_id: str = ""
    tp: int = UNKNOWN
    pp: int = UNKNOWN
    dp: int = UNKNOWN
    ep: int = UNKNOWN
    resolution_ns: int = 1
    source: str = ""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])


_adding = threading.Lock()  # of any table: a text is new only once


class StringTable:
    """Interned strings: text to a small integer and back. Index 0 is always ``""``.

    Texts are only ever added, so several threads may share one, and tables that share one are
    joined without another look at a text.

    Attributes:
        size_bytes: bytes of all texts, at most.
        companion: what the wire decoder keeps beside the texts to find them by their bytes; of
            no meaning to anybody else.
    """

    __slots__ = ("_index", "_texts", "companion", "size_bytes")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts: list[str] = [""]
        self._index: dict[str, int] = {"": 0}
        self.size_bytes = 0
        self.companion: object = None
        for text in texts:
            self.add(text)

    def add(self, text: str) -> int:
        """Returns the index of ``text``, adding it if it is new."""
        index = self._index.get(text)
        if index is None:
            with _adding:
                index = self._index.get(text)
                if index is None:
                    index = len(self._texts)
                    self.size_bytes += len(text) if text.isascii() else 4 * len(text)
                    self._texts.append(text)  # first: an index that is found has its text
                    self._index[text] = index
        return index

    def find(self, text: str) -> int:
        """Returns the index of ``text``, or ``UNKNOWN`` if it was never added."""
        return self._index.get(text, UNKNOWN)

    def __getitem__(self, index: int) -> str:
        return self._texts[index]

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __reduce__(self) -> tuple[type[StringTable], tuple[list[str]]]:
        return StringTable, (self._texts[1:],)  # the companion holds addresses of this process


def _column(dtype: str, fill: int, doc: str) -> Any:
    return field(metadata={"dtype": np.dtype(dtype), "fill": fill, "doc": doc})


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SpanTable:
    """Columns of ``n`` spans. Rows of a parent may stand before or after its children.

    Every array has length ``n`` and the dtype given in :data:`COLUMNS`; arrays are
    shared, never copied, so treat them as read-only.
    """

    strings: StringTable
    resources: tuple[Resource, ...]
    trace_hi: UInt64 = _column("u8", 0, "upper 64 bits of the trace id; one trace is one step")
    trace_lo: UInt64 = _column("u8", 0, "lower 64 bits of the trace id")
    span_id: UInt64 = _column("u8", 0, "span id; 0 before ids are assigned")
    parent_id: UInt64 = _column("u8", 0, "span id of the parent; 0 if none")
    parent: Int32 = _column("i4", NO_PARENT, "row of the parent; NO_PARENT if not in this table")
    start_ns: Int64 = _column("i8", 0, "start, Unix ns")
    duration_ns: Int64 = _column("i8", 0, "duration, ns, never negative")
    name: Int32 = _column("i4", 0, "string: kernel name as demangled, or operation name")
    kind: UInt8 = _column("u1", 0, "SpanKind")
    resource: Int32 = _column("i4", 0, "index into resources")
    step: Int32 = _column("i4", UNKNOWN, "engine iteration this work belongs to (that launched it)")
    thread: Int64 = _column("i8", UNKNOWN, "host thread id; UNKNOWN for GPU work")
    stream: Int32 = _column("i4", UNKNOWN, "CUDA stream id; UNKNOWN for host work")
    correlation: Int64 = _column("i8", UNKNOWN, "CUDA correlation id joining launch and GPU work")
    graph: Int32 = _column("i4", UNKNOWN, "CUDA graph (exec) id")
    graph_node: Int64 = _column("i8", UNKNOWN, "CUDA graph node id")
    grid: Int32 = _column("i4", 0, "string: launch grid 'x,y,z'; '' if none")
    block: Int32 = _column("i4", 0, "string: launch block 'x,y,z'; '' if none")
    bytes: Int64 = _column("i8", UNKNOWN, "bytes copied, set or communicated")
    group: Int32 = _column("i4", 0, "string: communicator of a collective; '' if unknown")
    sequence: Int64 = _column("i8", UNKNOWN, "sequence number of a collective in its communicator")
    attributes: Mapping[int, Mapping[str, AttributeValue]] = field(
        default_factory=dict[int, Mapping[str, AttributeValue]]
    )
    """Attributes that have no column, by row. Sparse: kernel spans have none."""

    def __len__(self) -> int:
        return len(self.start_ns)

    def __repr__(self) -> str:
        return f"<SpanTable of {len(self):,} spans, {len(self.resources)} resources>"

    @property
    def end_ns(self) -> Int64:
        """End of every span, Unix ns, int64 ``(n,)``."""
        return self.start_ns + self.duration_ns

    @property
    def rank(self) -> Int32:
        """Rank of every span, int32 ``(n,)``."""
        ranks = np.array([r.rank for r in self.resources] or [UNKNOWN], dtype=np.int32)
        return ranks[self.resource] if len(self) else np.empty(0, np.int32)

    @property
    def on_gpu(self) -> NDArray[np.bool_]:
        """Whether each span is GPU work, bool ``(n,)``."""
        return self.kind >= SpanKind.KERNEL

    @property
    def nbytes(self) -> int:
        """Bytes held by the columns (strings and resources not counted)."""
        columns = (getattr(self, name) for name in COLUMNS)
        return sum(c.nbytes if c.strides != (0,) else c.itemsize for c in columns)

    def text(self, index: int) -> str:
        """Returns the interned string ``index``."""
        return self.strings[index]

    def name_of(self, row: int) -> str:
        """Returns the name of the span in ``row``."""
        return self.strings[int(self.name[row])]

    def with_columns(self, **columns: NDArray[Any]) -> SpanTable:
        """Returns a table that shares everything with this one but the given columns.

        Raises:
            ValueError: a column is not known or has another length.
        """
        for key, values in columns.items():
            if key not in COLUMNS:
                raise ValueError(f"no column {key!r} in SpanTable")
            if len(values) != len(self):
                raise ValueError(f"column {key!r} has {len(values)} rows, the table {len(self)}")
        values = list(_all_fields(self))
        for key, column in columns.items():
            values[_PLACE_OF[key]] = np.ascontiguousarray(column, dtype=COLUMNS[key].dtype)
        return SpanTable(*values)

    def with_resources(self, resources: tuple[Resource, ...], resource: Int32) -> SpanTable:
        """Returns a table with other resources, of which each span has the one that is given."""
        values = list(_all_fields(self))
        values[_PLACE_OF["resources"]], values[_PLACE_OF["resource"]] = resources, resource
        return SpanTable(*values)

    def take(self, rows: NDArray[Any]) -> SpanTable:
        """Returns the given rows as a table of their own; parents outside become NO_PARENT.

        Args:
            rows: bool mask ``(n,)`` or integer row numbers.
        """
        index = (
            np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64, copy=False)
        )
        first = _contiguous(index)
        if first is not None:
            return self._slice(first, first + len(index))
        moved = np.full(len(self) + 1, NO_PARENT, dtype=np.int32)
        moved[index] = np.arange(len(index), dtype=np.int32)
        columns = {name: getattr(self, name)[index] for name in COLUMNS}
        columns["parent"] = moved[columns["parent"]]  # NO_PARENT is the last, spare place
        attributes = {
            int(moved[row]): values for row, values in self.attributes.items() if moved[row] >= 0
        }
        return SpanTable(self.strings, self.resources, attributes=attributes, **columns)

    def between(self, first: int, last: int, described: Sequence[int] | None = None) -> SpanTable:
        """Returns rows ``first`` to ``last`` (excluded) as views: they keep all of it in memory.

        Args:
            first, last: rows of this table.
            described: rows among them that have attributes; all are looked through if None.
        """
        columns = {name: getattr(self, name)[first:last] for name in COLUMNS}
        parent: Int32 = columns["parent"]
        if len(parent) and int(parent.max()) >= 0:
            parent = parent - np.int32(first)
            parent[(parent < 0) | (parent >= last - first)] = NO_PARENT
            columns["parent"] = parent
        if described is None:
            described = [row for row in self.attributes if first <= row < last]
        attributes = {row - first: self.attributes[row] for row in described}
        return SpanTable(self.strings, self.resources, attributes=attributes, **columns)

    def _slice(self, first: int, last: int) -> SpanTable:
        """Returns rows ``first`` to ``last`` (excluded): views if they are most of the table."""
        count = last - first
        if count == len(self):
            return self
        views = self.between(first, last)
        if 2 * count >= len(self):
            return views
        # a few rows must not keep a large table alive
        return replace(views, **{name: getattr(views, name).copy() for name in COLUMNS})

    @staticmethod
    def empty() -> SpanTable:
        """Returns a table without spans."""
        return SpanTableBuilder().build()


@dataclass(frozen=True, slots=True)
class Column:
    """What a column of :class:`SpanTable` holds."""

    dtype: np.dtype[Any]
    fill: int
    doc: str


COLUMNS: Mapping[str, Column] = {
    f.name: Column(f.metadata["dtype"], f.metadata["fill"], f.metadata["doc"])
    for f in fields(SpanTable)
    if "dtype" in f.metadata
}
"""Name, dtype, fill and meaning of every column, in order."""


_all_fields = attrgetter(*(f.name for f in fields(SpanTable)))
_PLACE_OF = {f.name: place for place, f in enumerate(fields(SpanTable))}


class SpanTableBuilder:
    """Collects spans in column chunks, so that a file can be read piece by piece."""

    def __init__(self, strings: StringTable | None = None) -> None:
        self.strings = StringTable() if strings is None else strings
        self._resources: list[Resource] = []
        self._chunks: list[dict[str, NDArray[Any]]] = []
        self._attributes: dict[int, Mapping[str, AttributeValue]] = {}
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add_resource(self, resource: Resource) -> int:
        """Returns the index of a new resource."""
        self._resources.append(resource)
        return len(self._resources) - 1

    def replace_resource(self, index: int, resource: Resource) -> None:
        """Replaces a resource, e.g. when the rank is only known at the end of the file."""
        self._resources[index] = resource

    def append(
        self,
        count: int,
        *,
        attributes: Mapping[int, Mapping[str, AttributeValue]] | None = None,
        **columns: Any,
    ) -> int:
        """Adds ``count`` spans and returns the row of the first.

        Args:
            count: number of spans.
            attributes: attributes without a column, by position in this chunk.
            **columns: arrays or lists of length ``count``, or a scalar for all; columns left
                out get their fill. ``parent`` holds rows of the table as built.
        """
        chunk: dict[str, NDArray[Any]] = {}
        for name, values in columns.items():
            column = COLUMNS[name]
            chunk[name] = np.broadcast_to(np.asarray(values, dtype=column.dtype), (count,))
        first = self._rows
        self._chunks.append(chunk)
        chunk["_count"] = np.array([count])
        for position, values in (attributes or {}).items():
            self._attributes[first + position] = values
        self._rows += count
        return first

    def build(self) -> SpanTable:
        """Returns the table and forgets the chunks, column by column, to bound the peak."""
        columns: dict[str, NDArray[Any]] = {}
        for name, column in COLUMNS.items():
            whole = np.full(self._rows, column.fill, dtype=column.dtype)
            at = 0
            for chunk in self._chunks:
                count = int(chunk["_count"][0])
                values = chunk.pop(name, None)
                if values is not None:
                    whole[at : at + count] = values
                at += count
            columns[name] = whole
        self._chunks.clear()
        return SpanTable(
            self.strings, tuple(self._resources), attributes=self._attributes, **columns
        )


def _contiguous(index: NDArray[np.int64]) -> int | None:
    """Returns the first of row numbers that follow one another, None if they do not."""
    count = len(index)
    if count == 0 or int(index[-1]) - int(index[0]) != count - 1 or int(index[0]) < 0:
        return None
    if count > 1 and not np.all(index[1:] > index[:-1]):
        return None
    return int(index[0])


def concat(tables: Sequence[SpanTable]) -> SpanTable:
    """Returns the spans of all tables in one; resources are kept apart.

    Strings of tables that share one :class:`StringTable` stay as they are; else those that are
    used are interned into a new one.
    """
    if len(tables) == 1:
        return tables[0]
    shared = {id(table.strings): table.strings for table in tables if len(table)}
    if len(shared) == 1:
        (strings,) = shared.values()
        moved: dict[int, Int32] = {}
    else:
        strings = StringTable()
        # Texts that a table's spans do not use are left behind: a shared one may hold many.
        moved = _interned(tables, strings)
    total = sum(map(len, tables))
    columns = uninitialised(total)
    resources: list[Resource] = []
    attributes: dict[int, Mapping[str, AttributeValue]] = {}
    first = 0
    for table in tables:
        last = first + len(table)
        for name, whole in columns.items():
            whole[first:last] = getattr(table, name)
        texts = moved.get(id(table.strings))
        if texts is not None:
            for name in _STRING_COLUMNS:
                columns[name][first:last] = texts[getattr(table, name)]
        if resources:
            columns["resource"][first:last] += np.int32(len(resources))
        parent = columns["parent"][first:last]
        if first:
            parent[parent >= 0] += np.int32(first)
        if table.attributes:
            attributes.update({first + row: v for row, v in table.attributes.items()})
        resources.extend(table.resources)
        first = last
    return SpanTable(strings, tuple(resources), attributes=attributes, **columns)


_WIDEST_FIRST = tuple(sorted(COLUMNS.items(), key=lambda item: -item[1].dtype.itemsize))  # aligned


def uninitialised(count: int, names: Collection[str] = COLUMNS) -> dict[str, NDArray[Any]]:
    """Returns columns to be filled, in one piece of memory: a large one comes in large pages."""
    memory = np.empty(count * sum(COLUMNS[name].dtype.itemsize for name in names), np.uint8)
    columns: dict[str, NDArray[Any]] = {}
    at = 0
    for name, column in _WIDEST_FIRST:
        if name in names:
            columns[name] = np.ndarray(count, column.dtype, memory, at)
            at += count * column.dtype.itemsize
    return columns


def _interned(tables: Sequence[SpanTable], strings: StringTable) -> dict[int, Int32]:
    """Adds the used texts of every string table to ``strings``; returns their new indices."""
    used: dict[int, tuple[StringTable, NDArray[np.bool_]]] = {}
    for table in filter(len, tables):
        # Others may add texts at the same time: this table's spans point below the length now.
        found = used.get(id(table.strings))
        if found is None or len(found[1]) < len(table.strings):
            marks = np.zeros(len(table.strings), np.bool_)
            if found is not None:
                marks[: len(found[1])] = found[1]
            found = used[id(table.strings)] = (table.strings, marks)
        for name in _STRING_COLUMNS:
            found[1][getattr(table, name)] = True
    moved: dict[int, Int32] = {}
    for key, (texts, marks) in used.items():
        indices = np.zeros(len(marks), np.int32)
        for index in np.flatnonzero(marks).tolist():
            indices[index] = strings.add(texts[index])
        moved[key] = indices
    return moved


_STRING_COLUMNS = ("name", "grid", "block", "group")
