"""The tables of an Nsight Systems export that hold spans, as data, and how to read them.

Versions add columns and tables; each column here has the value that stands for it where an
export lacks it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import TraceFileError
from kat_otel.readers.draft import Interner
from kat_otel.spans import UNKNOWN, SpanKind

__all__ = ["TABLES", "NsysTable", "Strings", "columns_of", "read_rows"]

_ROWS = 32_768
_REMEDY = "export the report again: nsys export --type sqlite REPORT.nsys-rep"

_GPU = {"device": "deviceId", "stream": "streamId", "pid": "globalPid"}
_COMMON = {"start": "start", "end": "end", "correlation": "correlationId"}


@dataclass(frozen=True, slots=True)
class NsysTable:
    """One table: what its rows are and which of its columns are wanted.

    Attributes:
        name: of the table.
        kind: of its spans.
        columns: our name of an integer column -> its name in the export, or several to choose
            the first that exists.
        text: whether names are text in the row (NVTX) rather than numbers of StringIds.
        where: which rows.
    """

    name: str
    kind: SpanKind
    columns: Mapping[str, str | Sequence[str]] = field(default_factory=dict[str, str])
    text: bool = False
    where: str = ""


TABLES: tuple[NsysTable, ...] = (
    NsysTable(
        "CUPTI_ACTIVITY_KIND_KERNEL",
        SpanKind.KERNEL,
        {
            **_COMMON, **_GPU,
            "name": ("demangledName", "shortName"),
            "gx": "gridX", "gy": "gridY", "gz": "gridZ",
            "bx": "blockX", "by": "blockY", "bz": "blockZ",
            "graph": "graphId", "graph_node": "graphNodeId",
        },
    ),
    NsysTable(
        "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",  # graphs traced whole, without their nodes
        SpanKind.KERNEL,
        {**_COMMON, **_GPU, "graph": "graphId"},
    ),
    NsysTable(
        "CUPTI_ACTIVITY_KIND_MEMCPY",
        SpanKind.MEMCPY,
        {
            **_COMMON, **_GPU,
            "bytes": "bytes", "copy": "copyKind", "from": "srcKind", "to": "dstKind",
            "graph_node": "graphNodeId",
        },
    ),
    NsysTable(
        "CUPTI_ACTIVITY_KIND_MEMSET",
        SpanKind.MEMSET,
        {**_COMMON, **_GPU, "bytes": "bytes", "graph_node": "graphNodeId"},
    ),
    NsysTable(
        "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION",
        SpanKind.SYNC,
        # Its device column says 0 for every process: not read.
        {**_COMMON, "stream": "streamId", "pid": "globalPid", "sync": "syncType"},
    ),
    NsysTable(
        "CUPTI_ACTIVITY_KIND_RUNTIME",
        SpanKind.LAUNCH,
        {**_COMMON, "tid": "globalTid", "name": "nameId"},
    ),
    NsysTable(
        "NVTX_EVENTS",
        SpanKind.HOST_OP,
        {"start": "start", "end": "end", "tid": "globalTid"},
        text=True,
        where='"end" IS NOT NULL',
    ),
)  # fmt: skip


def columns_of(database: sqlite3.Connection, table: str) -> set[str]:
    """Returns the names of a table's columns; none if there is no such table."""
    return {row[1] for row in database.execute(f'PRAGMA table_info("{table}")')}


def read_rows(
    database: sqlite3.Connection, table: NsysTable, path: str
) -> Iterator[tuple[dict[str, NDArray[np.int64]], list[str]]]:
    """Yields a table's rows in chunks: integer columns by our names, and texts if it has them.

    Raises:
        TraceFileError: the table is damaged or holds values that are no integers.
    """
    try:
        present = columns_of(database, table.name)
        if not {"start", "end"} <= present:
            return
        wanted = {ours: _expression(theirs, present) for ours, theirs in table.columns.items()}
        selected = list(wanted.values())
        if table.text:
            selected.append(_text_expression(present, database))
        where = f" WHERE {table.where}" if table.where else ""
        # Names come from the constants above, never from the file.
        cursor = database.execute(f'SELECT {", ".join(selected)} FROM "{table.name}"{where}')  # noqa: S608
        while rows := cursor.fetchmany(_ROWS):
            texts: list[str] = []
            if table.text:
                texts = [str(row[-1]) for row in rows]
                rows = [row[:-1] for row in rows]
            values = np.array(rows, dtype=np.int64)
            yield {ours: values[:, i] for i, ours in enumerate(wanted)}, texts
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        raise TraceFileError(
            path, f"damaged: {error}", place=f"table {table.name}", remedy=_REMEDY
        ) from error


def _expression(theirs: str | Sequence[str], present: set[str]) -> str:
    for name in (theirs,) if isinstance(theirs, str) else theirs:
        if name in present:
            return f'COALESCE("{name}", {UNKNOWN})'
    return str(UNKNOWN)


def _text_expression(present: set[str], database: sqlite3.Connection) -> str:
    sources = ['"text"'] if "text" in present else []
    if "textId" in present and columns_of(database, "StringIds"):
        sources.append('(SELECT "value" FROM StringIds WHERE StringIds.id = "textId")')
    text = f"COALESCE({', '.join([*sources, repr('')])}, '')"
    # torch's emit_nvtx appends a number that makes each call's name its own.
    at = f"instr({text}, ', op_id = ')"
    return f"CASE {at} WHEN 0 THEN {text} ELSE substr({text}, 1, {at} - 1) END"


class Strings:
    """Numbers of the export's StringIds to indices of our string table, fetched when first met."""

    def __init__(self, database: sqlite3.Connection, names: Interner, path: str) -> None:
        self._database = database
        self._names = names
        self._path = path
        self._known: dict[int, int] = {}

    def indices(self, ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """Returns string indices for StringIds numbers, int32 ``(n,)``.

        Raises:
            TraceFileError: the table of strings is damaged.
        """
        distinct, place = np.unique(ids, return_inverse=True)
        wanted = [int(i) for i in distinct if int(i) not in self._known]
        try:
            for at in range(0, len(wanted), 500):
                some = wanted[at : at + 500]
                marks = ",".join("?" * len(some))
                query = f"SELECT id, value FROM StringIds WHERE id IN ({marks})"  # noqa: S608
                for number, text in self._database.execute(query, some):
                    self._known[number] = self._names[str(text)]
        except sqlite3.Error as error:
            raise TraceFileError(
                self._path, f"damaged: {error}", place="table StringIds", remedy=_REMEDY
            ) from error
        for number in wanted:
            self._known.setdefault(number, self._names[f"string {number} (not in the export)"])
        of_distinct = np.array([self._known[int(i)] for i in distinct], dtype=np.int32)
        return of_distinct[place]
