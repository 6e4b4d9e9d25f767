"""Fills in the columns of steps that end together, by the native library or by NumPy.

A step has the rows of its worker step, ranges, calls, waits and GPU work, in this order. Its
columns lie in one piece of memory that is its own: whoever keeps the table keeps nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import CaptureError
from kat_otel.instrumentation.capture.library import load
from kat_otel.instrumentation.steps.leaving import Leaving
from kat_otel.spans import COLUMNS, NO_PARENT, UNKNOWN, SpanKind

__all__ = ["CALLS", "RANGES", "WAITS", "WORKS", "Fill", "Spans", "by_numpy", "fastest", "natively"]

Int64 = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]

RANGES, CALLS, WAITS, WORKS = 0, 1, 2, 3
"""Forms of records, in the order of their rows."""

_HOST_OP, _SYNC = int(SpanKind.HOST_OP), int(SpanKind.SYNC)
_WORKER_STEP = int(SpanKind.WORKER_STEP)

_ORDER: Final = (  # of columns.c; the widest first: aligned
    "start_ns", "duration_ns", "thread", "correlation", "bytes", "graph_node", "sequence",
    "parent", "name", "stream", "grid", "block", "graph", "group", "kind",
)  # fmt: skip
_ITEM: Final = {name: COLUMNS[name].dtype for name in _ORDER}
_STEP: Final = np.dtype(  # struct kat_step of columns.c
    [
        *((name, "<i8") for name in ("begin", "end", "thread")),
        ("counts", "<i8", (4,)),
        ("columns", "<u8"),
    ]
)
_LEAVING: Final = struct.Struct("@q10P4i")  # struct kat_leaving


@dataclass(slots=True, eq=False)
class Spans:
    """Steps whose columns are to be filled in.

    Attributes:
        leaving: their records.
        worker_step, wait: texts: names of these spans.
        range_parent, call_parent: place of the range that each stands in, NO_PARENT if in none.
        group, sequence: of GPU work; None if none has any.
        counts: records of each form and step, int64 ``(4, steps)``.
        first: of each form, the place of a step's first record, int64 ``(4, steps)``.
        graphs, moved: whether any of the work is a graph's, and whether any record has bytes.
    """

    leaving: Leaving
    worker_step: int
    wait: int
    range_parent: Int64
    call_parent: Int64
    group: NDArray[np.int32] | None
    sequence: Int64 | None
    counts: Int64 = field(init=False)
    first: Int64 = field(init=False)
    graphs: bool = field(init=False)
    moved: bool = field(init=False)

    def __post_init__(self) -> None:
        counts = [np.bincount(of, minlength=len(self.leaving.steps)) for of in self._of]
        self.counts = np.array(counts, np.int64)
        self.first = np.cumsum(self.counts, axis=1) - self.counts
        ranges, work = self.leaving.ranges, self.leaving.work
        self.graphs = bool((work["graph"] != UNKNOWN).any())
        self.moved = any(bool((one["bytes"] != UNKNOWN).any()) for one in (ranges, work))

    @property
    def _of(self) -> tuple[Int64, ...]:
        one = self.leaving
        return one.of_range, one.of_call, one.of_wait, one.of_work

    def row(self, form: int, place: int) -> int:
        """Returns the row of a record within its step's table."""
        step = int(self._of[form][place])
        return 1 + int(self.counts[:form, step].sum()) + place - int(self.first[form, step])

    def rows(self, form: int) -> Int64:
        """Returns the row of each record of a form within its step's table, int64 ``(n,)``."""
        of = self._of[form]
        before = 1 + self.counts[:form].sum(axis=0) - self.first[form]
        return np.arange(len(of)) + before[of]

    def names(self) -> tuple[str, ...]:
        """Returns the columns that differ from row to row, the widest first."""
        without: set[str] = set()
        if not self.graphs:
            without |= {"graph", "graph_node"}
        if not self.moved:
            without.add("bytes")
        if self.group is None:
            without |= {"group", "sequence"}
        return tuple(name for name in _ORDER if name not in without)


Fill = Callable[[Spans], list[tuple[Columns, int]]]
"""Returns the columns of each step, and the bytes that they hold."""


def fastest() -> Fill:
    """Returns the native way if the library was built, else NumPy's."""
    try:
        return partial(natively, load())
    except CaptureError:  # who wants to capture by CUPTI is told; tables are none the worse
        return by_numpy


def _tables(spans: Spans) -> Iterator[tuple[Columns, NDArray[np.uint8]]]:
    """Yields the columns of each step, those of many values not filled in, and their memory."""
    names = spans.names()
    width = sum(_ITEM[name].itemsize for name in names)
    constant = [name for name in COLUMNS if name not in names]
    counts: list[int] = (1 + spans.counts.sum(axis=0)).tolist()
    for one, count in zip(spans.leaving.steps, counts, strict=True):
        memory = np.empty(count * width, np.uint8)
        columns: Columns = {}
        at = 0
        for name in names:
            columns[name] = np.ndarray(count, _ITEM[name], memory, at)
            at += count * _ITEM[name].itemsize
        for name in constant:
            columns[name] = _constant(name, one.step if name == "step" else None, count)
        yield columns, memory


def _constant(name: str, value: int | None, count: int) -> NDArray[Any]:
    """Returns a column of one value: what np.broadcast_to does, without its ten microseconds."""
    column = COLUMNS[name]
    if value is None:
        value = 0 if name == "resource" else column.fill
    one = np.array([value], column.dtype)
    one.flags.writeable = False
    return np.ndarray(count, column.dtype, one, 0, (0,))


# --- the native library ---------------------------------------------------------------------


def natively(library: Any, spans: Spans) -> list[tuple[Columns, int]]:
    """Fills columns in by ``native/columns.c``."""
    leaving = spans.leaving
    made = list(_tables(spans))
    steps = np.zeros(len(made), _STEP)
    for name in ("begin", "end", "thread"):
        steps[name] = [getattr(one, name) for one in leaving.steps]
    steps["counts"] = spans.counts.T
    steps["columns"] = [memory.ctypes.data for _, memory in made]
    arrays = (
        leaving.ranges,
        leaving.calls,
        leaving.waits,
        leaving.work,
        spans.range_parent,
        spans.call_parent,
        leaving.call_of_wait,
        leaving.call_of_work,
        spans.group,
        spans.sequence,
    )
    held = [None if one is None else np.ascontiguousarray(one) for one in arrays]
    places = [0 if one is None else one.ctypes.data for one in held]
    said = _LEAVING.pack(
        len(made), *places, spans.worker_step, spans.wait, spans.graphs, spans.moved
    )
    library.kat_fill(said, steps.ctypes.data)
    return [(columns, memory.nbytes) for columns, memory in made]


# --- NumPy ------------------------------------------------------------------------------------


def by_numpy(spans: Spans) -> list[tuple[Columns, int]]:
    """Fills columns in step by step, so that a step's records are read while they are near.

    By slices, which are three times as fast as indices of rows.
    """
    leaving = spans.leaving
    values = _values(spans)
    ends: list[int] = _ends(leaving).tolist()
    filled: list[tuple[Columns, int]] = []
    for place, (columns, memory) in enumerate(_tables(spans)):
        step = leaving.steps[place]
        top = {
            "start_ns": step.begin,
            "duration_ns": ends[place] - step.begin,
            "thread": step.thread,
            "name": spans.worker_step,
            "kind": _WORKER_STEP,
        }
        for name in spans.names():
            column = columns[name]
            column[0] = top.get(name, COLUMNS[name].fill)
            to = 1
            for form, value in enumerate(values[name]):
                first, count = int(spans.first[form, place]), int(spans.counts[form, place])
                whole = np.ndim(value) > 0
                column[to : to + count] = value[first : first + count] if whole else value
                to += count
        filled.append((columns, memory.nbytes))
    return filled


def _values(spans: Spans) -> dict[str, tuple[Any, ...]]:
    """Returns what ranges, calls, waits and GPU work have in each column."""
    leaving = spans.leaving
    ranges, calls, waits, work = leaving.ranges, leaving.calls, leaving.waits, leaving.work
    of_ranges, of_calls = spans.rows(RANGES), spans.rows(CALLS)
    graph = np.full(len(calls), UNKNOWN, np.int64)
    known = np.flatnonzero((leaving.call_of_work >= 0) & (work["graph"] != UNKNOWN))
    graph[leaving.call_of_work[known]] = work["graph"][known]
    values: dict[str, tuple[Any, ...]] = {
        "start_ns": tuple(one["start"] for one in (ranges, calls, waits, work)),
        "duration_ns": tuple(one["end"] - one["start"] for one in (ranges, calls, waits, work)),
        "parent": (
            _row_of(of_ranges, spans.range_parent),
            _row_of(of_ranges, spans.call_parent),
            _row_of(of_calls, leaving.call_of_wait),
            _row_of(of_calls, leaving.call_of_work),
        ),
        "name": (ranges["name"], calls["name"], spans.wait, work["name"]),
        "kind": (_HOST_OP, calls["kind"], _SYNC, work["kind"]),
        "thread": (ranges["thread"], calls["thread"], UNKNOWN, UNKNOWN),
        "correlation": (UNKNOWN, *(one["correlation"] for one in (calls, waits, work))),
        "bytes": (ranges["bytes"], UNKNOWN, UNKNOWN, work["bytes"]),
        "graph": (UNKNOWN, graph, UNKNOWN, work["graph"]),
        "group": (0, 0, 0, 0 if spans.group is None else spans.group),
        "sequence": (UNKNOWN,) * 3 + (UNKNOWN if spans.sequence is None else spans.sequence,),
    }
    for name in set(_ORDER) - set(values):
        fill = COLUMNS[name].fill
        values[name] = (fill, fill, fill, work[name])
    return values


def _row_of(rows: Int64, parent: Int64) -> Int64:
    """Returns the row of each parent, by its place; the worker step's where there is none."""
    if not len(rows):
        return np.zeros(len(parent), np.int64)
    return np.where(parent != NO_PARENT, rows[parent], 0)


def _ends(leaving: Leaving) -> Int64:
    """Returns when each step ended: at its mark, or with the last work launched before that.

    Work launched later, while nobody has begun the next step, belongs to it too, but has no say:
    a copy in the background would make an idle step a long one.
    """
    marked = np.array([one.end for one in leaving.steps], np.int64)
    end = np.maximum(marked, [one.begin for one in leaving.steps])
    until = np.where(marked < 0, np.iinfo(np.int64).max, marked)  # cut short: all has a say
    launched: Int64 = leaving.work["start"]
    if len(leaving.calls):
        known = leaving.call_of_work >= 0
        launched = np.where(known, leaving.calls["start"][leaving.call_of_work], launched)
    counted = launched <= until[leaving.of_work]
    latest = np.where(counted, leaving.work["end"], 0)
    first = np.flatnonzero(np.diff(leaving.of_work, prepend=-1))
    if len(first):
        owner = leaving.of_work[first]
        end[owner] = np.maximum(end[owner], np.maximum.reduceat(latest, first))
    if (marked < 0).any():
        cut = np.flatnonzero(marked[leaving.of_call] < 0)
        np.maximum.at(end, leaving.of_call[cut], leaving.calls["end"][cut])
    return end
