"""Draft -> tree: steps, parents and one worker step per rank and step.

The order: launches are joined to GPU work by correlation, marks say the step of host work,
GPU work takes the step of its launch, host spans nest by containment within a step, and
what is left without a parent hangs under its worker step. The step's root is not made here:
only the processor knows when all ranks have reported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.readers.draft import Draft
from kat_otel.readers.steps import Marks, choose_family, find_marks, step_at
from kat_otel.spans import COLUMNS, NO_PARENT, SpanKind, SpanTable, SpanTableBuilder
from kat_otel.trees import WORKER_STEP_NAME, fill_along, innermost_enclosing, join_launches

__all__ = ["assemble"]

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


def assemble(draft: Draft, default_step: int = 0) -> SpanTable:
    """Returns the draft's spans with steps and parents, worker steps at the end.

    Args:
        draft: the spans of one file. It is used up: its table is empty afterwards, so that the
            columns are never in memory twice.
        default_step: number of the step if nothing in the file marks any.
    """
    table = draft.table
    launch_of = _join(draft)
    marks = _marks(draft, default_step)
    table.step[:] = _steps(draft, launch_of, marks)
    table.parent[:] = launch_of
    host = np.flatnonzero(draft.lane >= 0)
    inner = innermost_enclosing(
        draft.lane[host],
        table.start_ns[host],
        table.end_ns[host],
        (table.kind[host] != SpanKind.HOST_OP).astype(np.int8),
        max((r.resolution_ns for r in table.resources if r.resolution_ns > 1), default=0),
    )
    nested = inner >= 0
    table.parent[host[nested]] = host[inner[nested]]
    # One trace is one step: a frame that spans several steps is nobody's parent outside its own.
    abroad = (table.parent >= 0) & (table.step[np.maximum(table.parent, 0)] != table.step)
    table.parent[abroad] = NO_PARENT
    _note_missing_launches(draft, launch_of)
    del table, launch_of, inner, nested, abroad, host
    return _with_worker_steps(draft)


def _join(draft: Draft) -> Int64:
    """Returns the row of the call that launched each span, or NO_PARENT, int64 ``(n,)``."""
    table = draft.table
    calls = (table.kind == SpanKind.LAUNCH) | (table.kind == SpanKind.SYNC)
    launches = np.flatnonzero(calls & (draft.lane >= 0))
    work = np.flatnonzero(table.on_gpu | (calls & (draft.lane < 0)))
    process = np.zeros(len(table), np.int32) if draft.process is None else draft.process
    found = join_launches(
        process[launches], table.correlation[launches], process[work], table.correlation[work]
    )
    launch_of = np.full(len(table), NO_PARENT, dtype=np.int64)
    hit = found >= 0
    launch_of[work[hit]] = launches[found[hit]]
    return launch_of


def _marks(draft: Draft, default_step: int) -> list[Marks]:
    """Returns the steps of every resource."""
    table = draft.table
    family = choose_family(table.strings[i] for i in draft.annotations)
    chosen = np.zeros(len(table.strings), dtype=bool)
    if family is not None:
        chosen[[i for i in draft.annotations if family.match(table.strings[i])]] = True
    rows = np.flatnonzero(chosen[table.name] & (draft.lane >= 0))
    marks: list[Marks] = []
    for resource in range(len(table.resources)):
        mine = rows[table.resource[rows] == resource]
        names = [table.name_of(row) for row in mine.tolist()]
        marks.append(find_marks(family, names, table.start_ns[mine], default_step))
    return marks


def _steps(draft: Draft, launch_of: Int64, marks: list[Marks]) -> Int32:
    table = draft.table
    step = np.empty(len(table), dtype=np.int32)
    for resource, mine in enumerate(marks):
        rows = table.resource == resource if len(marks) > 1 else slice(None)
        step[rows] = step_at(mine, table.start_ns[rows])
    if all(len(mine.step) == 1 for mine in marks):
        return step
    launched = launch_of >= 0
    step[launched] = step[launch_of[launched]]
    work = np.flatnonzero(table.on_gpu)
    stream = table.resource[work].astype(np.int64) << 32 | (table.stream[work].astype(np.int64) + 1)
    step[work] = fill_along(stream, table.start_ns[work], step[work], launched[work])
    return step


def _note_missing_launches(draft: Draft, launch_of: Int64) -> None:
    kernels = (draft.table.kind == SpanKind.KERNEL) | (draft.table.kind == SpanKind.COLLECTIVE)
    total = int(np.count_nonzero(kernels))
    lost = int(np.count_nonzero(kernels & (launch_of < 0)))
    if lost:
        source = draft.resources[0].source.replace("\\", "/").rpartition("/")[2]
        draft.notes.append(
            f"{source}: {lost:,} of {total:,} kernels have no launch record (launched before the "
            "window, or dropped); they hang under the worker step"
        )


def _with_worker_steps(draft: Draft) -> SpanTable:
    """Returns the spans with one row more per resource and step, parent of all that had none."""
    table, draft.table = draft.table, SpanTable.empty()
    count = len(table)
    base = int(table.step.min(initial=0))
    span = int(table.step.max(initial=0)) - base + 1
    keys, key_of = np.unique(
        table.resource.astype(np.int64) * span + (table.step - base), return_inverse=True
    )
    start = np.full(len(keys), np.iinfo(np.int64).max)
    end = np.full(len(keys), np.iinfo(np.int64).min)
    np.minimum.at(start, key_of, table.start_ns)
    np.maximum.at(end, key_of, table.end_ns)
    orphans = np.flatnonzero(table.parent == NO_PARENT)
    table.parent[orphans] = count + key_of[orphans]
    del key_of, orphans
    more = SpanTableBuilder()
    more.append(
        len(keys),
        start_ns=start,
        duration_ns=end - start,
        name=table.strings.add(WORKER_STEP_NAME),
        kind=SpanKind.WORKER_STEP,
        resource=keys // span,
        step=keys % span + base,
    )
    rows = more.build()
    strings, resources, attributes = table.strings, table.resources, table.attributes
    columns: dict[str, Any] = {name: getattr(table, name) for name in COLUMNS}
    del table
    for name in COLUMNS:  # one by one: each old column goes before the next is copied
        columns[name] = np.concatenate([columns[name], getattr(rows, name)])
    return SpanTable(strings, resources, attributes=attributes, **columns)
