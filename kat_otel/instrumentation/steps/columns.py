"""From the records of steps that end together to their span tables, one column at a time.

Steps share the memory of their columns: a table keeps alive what came with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel import semconv
from kat_otel.instrumentation.steps.collectives import Calls, match, operation_of
from kat_otel.instrumentation.steps.leaving import Leaving
from kat_otel.instrumentation.steps.names import Names
from kat_otel.instrumentation.steps.nesting import Hosts, inside_seen
from kat_otel.spans import COLUMNS, NO_PARENT, UNKNOWN, Resource, SpanKind, SpanTable
from kat_otel.trees import WORKER_STEP_NAME

__all__ = ["to_tables"]

Int64 = NDArray[np.int64]
Attributes = Mapping[str, str | bool | int | float | bytes]

_COLLECTIVE, _HOST_OP = int(SpanKind.COLLECTIVE), int(SpanKind.HOST_OP)
_SYNC, _WORKER_STEP = int(SpanKind.SYNC), int(SpanKind.WORKER_STEP)
_PLACEHOLDER: Final = (Resource(),)


class _Rows:
    """Where the spans of each step and form stand: worker step, ranges, calls, waits, work.

    Attributes:
        first: row of each step's worker step, and the number of rows, int64 ``(steps + 1,)``.
        own: rows within their step, of each form.
        moves: of each form, rows in all tables together and the records that stand there.
    """

    def __init__(self, steps: int, forms: Sequence[Int64]) -> None:
        counts = np.array([np.bincount(form, minlength=steps) for form in forms])
        self.first = np.concatenate([[0], np.cumsum(1 + counts.sum(axis=0))]).astype(np.int64)
        self.own: list[Int64] = []
        self.moves: list[list[tuple[slice, slice]]] = []
        before = np.ones(steps, np.int64)
        for form, count in zip(forms, counts, strict=True):
            ends = np.cumsum(count)
            self.own.append(np.arange(len(form)) - (ends - count - before)[form])
            cuts = zip(
                (self.first[:-1] + before).tolist(), ends.tolist(), count.tolist(), strict=True
            )
            self.moves.append(
                [(slice(to, to + n), slice(end - n, end)) for to, end, n in cuts if n]
            )
            before = before + count

    def whole(self, form: int, of: Int64, rows: Int64) -> Int64:
        """Returns the rows in all tables together of some records; ``of``: steps of the form's."""
        return self.own[form][rows] + self.first[of[rows]]


def to_tables(
    leaving: Leaving, names: Names, lost: Sequence[int], said: Mapping[int, Attributes]
) -> list[SpanTable]:
    """Returns the spans of each step, row 0 the worker step.

    Args:
        leaving: their records.
        names: whose texts their names are.
        lost: records lost in each step.
        said: attributes of ranges by the number in their records.
    """
    steps = leaving.steps
    if not steps:
        return []
    _name_graphs(leaving.work, names)
    rows = _Rows(len(steps), [leaving.of_range, leaving.of_call, leaving.of_wait, leaving.of_work])
    columns = _columns(leaving, names, rows)
    met = _collectives(leaving, names, rows, columns)
    told = _told(leaving, rows, said)
    constant = {name: _constant(name, int(rows.first[-1])) for name in COLUMNS}
    tables: list[SpanTable] = []
    for place, one in enumerate(steps):
        low, high = int(rows.first[place]), int(rows.first[place + 1])
        top = {semconv.DROPPED_COUNT: lost[place], semconv.CAPTURE_OVERHEAD_NS: one.overhead_ns}
        attributes: dict[int, Attributes] = {0: top}
        attributes.update(
            {row - low: {semconv.PEER: peer} for row, peer in met if low < row < high}
        )
        attributes.update({row - low: one for row, one in told if low < row < high})
        mine = {name: columns.get(name, constant[name])[low:high] for name in COLUMNS}
        tables.append(SpanTable(names.strings, _PLACEHOLDER, attributes=attributes, **mine))
    return tables


def _told(
    leaving: Leaving, rows: _Rows, said: Mapping[int, Attributes]
) -> list[tuple[int, Attributes]]:
    """Returns row and attributes of each range that a hook said: a few a step."""
    ranges = np.flatnonzero(leaving.ranges["said"])
    where: list[int] = rows.whole(0, leaving.of_range, ranges).tolist()
    numbers: list[int] = leaving.ranges["said"][ranges].tolist()
    found = [(row, said[number]) for row, number in zip(where, numbers, strict=True)]
    return [(row, attributes) for row, attributes in found if attributes]


def _name_graphs(work: NDArray[Any], names: Names) -> None:
    """Names graphs that were launched as a whole, numbered as they come."""
    unnamed = np.flatnonzero(work["name"] == 0)
    if not len(unnamed):
        return
    graphs, first, place = np.unique(work["graph"][unnamed], return_index=True, return_inverse=True)
    name = np.zeros(len(graphs), np.int32)
    for graph in np.argsort(first).tolist():
        name[graph] = names.graph(int(graphs[graph]))
    work["name"][unnamed] = name[place]


def _constant(name: str, count: int) -> NDArray[Any]:
    column = COLUMNS[name]
    fill = 0 if name == "resource" else column.fill
    return np.broadcast_to(np.array(fill, column.dtype), (count,))


_MADE: Final = (  # the widest first: aligned
    "start_ns", "duration_ns", "thread", "correlation", "bytes", "graph_node",
    "parent", "name", "step", "stream", "grid", "block", "graph", "kind",
)  # fmt: skip


def _uninitialised(count: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Returns columns to be filled, in one piece of memory: a large one comes in large pages."""
    memory = np.empty(count * sum(COLUMNS[name].dtype.itemsize for name in names), np.uint8)
    columns: dict[str, NDArray[Any]] = {}
    at = 0
    for name in names:
        dtype = COLUMNS[name].dtype
        columns[name] = np.ndarray(count, dtype, memory, at)
        at += count * dtype.itemsize
    return columns


def _columns(leaving: Leaving, names: Names, rows: _Rows) -> dict[str, NDArray[Any]]:
    steps, top = leaving.steps, rows.first[:-1]
    ranges, calls, waits, work = leaving.ranges, leaving.calls, leaving.waits, leaving.work
    graphs = bool((work["graph"] != UNKNOWN).any())
    made = [name for name in _MADE if graphs or name not in {"graph", "graph_node"}]
    columns = _uninitialised(int(rows.first[-1]), made)
    hosts = Hosts(leaving.of_range, ranges), Hosts(leaving.of_call, calls)
    range_parent, call_parent = inside_seen(*hosts, ranges["said"] > 0)
    begin = np.array([one.begin for one in steps], np.int64)
    starts = [one["start"] for one in (ranges, calls, waits, work)]
    durations = [one["end"] - one["start"] for one in (ranges, calls, waits, work)]
    parents = [
        _row_of(rows.own[0], range_parent),
        _row_of(rows.own[0], call_parent),
        _row_of(rows.own[1], leaving.call_of_wait),
        _row_of(rows.own[1], leaving.call_of_work),
    ]
    worker_step = names.strings.add(WORKER_STEP_NAME)
    wait = names.strings.add("Synchronize")
    threads = [one.thread for one in steps]
    values: dict[str, tuple[Any, ...]] = {  # of worker steps, ranges, calls, waits, work
        "parent": (NO_PARENT, *parents),
        "start_ns": (begin, *starts),
        "duration_ns": (_ends(leaving) - begin, *durations),
        "name": (worker_step, ranges["name"], calls["name"], wait, work["name"]),
        "kind": (_WORKER_STEP, _HOST_OP, calls["kind"], _SYNC, work["kind"]),
        "step": ([one.step for one in steps], *_repeated(leaving)),
        "thread": (threads, ranges["thread"], calls["thread"], UNKNOWN, UNKNOWN),
        "correlation": (
            UNKNOWN,
            UNKNOWN,
            *(one["correlation"] for one in (calls, waits, work)),
        ),
        "bytes": (UNKNOWN, ranges["bytes"], UNKNOWN, UNKNOWN, work["bytes"]),
    }
    for name in set(made) - set(values):
        fill = COLUMNS[name].fill
        values[name] = (fill, fill, fill, fill, work[name])
    for name, column in columns.items():
        column[top] = values[name][0]
    _fill(columns, values, rows)
    if graphs:
        known = np.flatnonzero((leaving.call_of_work >= 0) & (work["graph"] != UNKNOWN))
        launch = rows.whole(1, leaving.of_call, leaving.call_of_work[known])
        columns["graph"][launch] = work["graph"][known]
    return columns


def _repeated(leaving: Leaving) -> list[Int64]:
    """Returns the number of the step of each record, of each form."""
    numbers = np.array([one.step for one in leaving.steps], np.int64)
    forms = (leaving.of_range, leaving.of_call, leaving.of_wait, leaving.of_work)
    return [numbers[form] for form in forms]


def _fill(
    columns: Mapping[str, NDArray[Any]], values: Mapping[str, Sequence[Any]], rows: _Rows
) -> None:
    """Fills the columns step by step, so that a step's records are read while they are near.

    By slices, which are three times as fast as indices of rows.
    """
    for form, moves in enumerate(rows.moves, start=1):
        pairs = [(column, values[name][form]) for name, column in columns.items()]
        arrays = [(column, one) for column, one in pairs if np.ndim(one)]
        fixed = [(column, one) for column, one in pairs if not np.ndim(one)]
        for to, which in moves:
            for column, one in arrays:
                column[to] = one[which]
            for column, one in fixed:
                column[to] = one


def _row_of(own: Int64, parent: Int64) -> Int64:
    """Returns the row of each parent, by its position; the worker step's where there is none."""
    return np.where(parent >= 0, own[parent], 0) if len(own) else np.zeros(len(parent), np.int64)


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


def _collectives(
    leaving: Leaving, names: Names, rows: _Rows, columns: dict[str, NDArray[Any]]
) -> list[tuple[int, int]]:
    """Adds what NCCL said of the collectives; returns row and peer of sends and receives."""
    called = np.flatnonzero(leaving.ranges["operation"])
    launched = np.flatnonzero((leaving.work["kind"] == _COLLECTIVE) & (leaving.call_of_work >= 0))
    if not len(called) or not len(launched):
        return []
    ranges, calls = leaving.ranges[called], leaving.calls[leaving.call_of_work[launched]]
    threads = np.unique(np.concatenate([ranges["thread"], calls["thread"]]))

    def lane(step: Int64, thread: Int64) -> Int64:
        return step * len(threads) + np.searchsorted(threads, thread)

    exact, alike = match(
        Calls(
            lane(leaving.of_range[called], ranges["thread"]),
            ranges["start"],
            ranges["end"],
            ranges["operation"].astype(np.int64),
            ranges["group"],
        ),
        Calls(
            lane(leaving.of_work[launched], calls["thread"]),
            calls["start"],
            calls["end"],
            operation_of(names.strings, leaving.work["name"][launched]),
            np.zeros(len(calls), np.uint64),
        ),
    )
    columns["group"] = np.zeros(int(rows.first[-1]), np.int32)
    columns["sequence"] = np.full(int(rows.first[-1]), UNKNOWN, np.int64)
    told = np.flatnonzero(alike >= 0)
    groups, place = np.unique(ranges["group"][alike[told]], return_inverse=True)
    texts = np.array([names.strings.add(f"{group:016x}") for group in groups.tolist()], np.int32)
    columns["group"][rows.whole(3, leaving.of_work, launched[told])] = texts[place]
    sure = np.flatnonzero(exact >= 0)
    where, which = rows.whole(3, leaving.of_work, launched[sure]), ranges[exact[sure]]
    columns["sequence"][where] = which["sequence"]
    columns["bytes"][where] = which["bytes"]
    peers = np.flatnonzero(which["peer"] >= 0)
    return list(zip(where[peers].tolist(), which["peer"][peers].tolist(), strict=True))
