"""Real traces, taken apart into records and put together again: the readers' steps and parents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kat_otel.instrumentation.capture.records import (
    API,
    COPY,
    KERNEL,
    MARKER,
    SET,
    STEP,
    Batch,
    Edge,
)
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.tree import StepMaker
from kat_otel.kernels import COPY_KINDS, classify
from kat_otel.readers import read
from kat_otel.spans import SpanKind, SpanTable, StringTable

CODES = {text: code for code, text in COPY_KINDS.items()}


def _take(table: SpanTable, rows, dtype, texts: StringTable):
    made = np.zeros(len(rows), dtype)
    columns = {"start": table.start_ns, "end": table.end_ns, "correlation": table.correlation}
    columns |= {"thread": table.thread, "stream": table.stream, "bytes": table.bytes}
    for name in dtype.names:
        if name in columns:
            made[name] = columns[name][rows]
    if "name" in dtype.names:
        made["name"] = [texts.add(table.name_of(row)) for row in rows]
    if dtype is KERNEL:
        for name in ("grid", "block"):
            texts_of = [table.text(i) or "0,0,0" for i in getattr(table, name)[rows]]
            made[name] = [[int(side) for side in text.split(",")] for text in texts_of]
    if dtype is COPY:
        made["kind"] = [CODES.get(table.name_of(row).split()[1], 0) for row in rows]
    return made


def taken_apart(table: SpanTable) -> Batch:
    """The records that capture would have made of a file with one rank."""
    texts, kind = StringTable(), table.kind
    known = {COPY: kind == SpanKind.MEMCPY, SET: kind == SpanKind.MEMSET}
    known[KERNEL] = (kind == SpanKind.KERNEL) | (kind == SpanKind.COLLECTIVE)
    host = (table.thread >= 0) | (table.stream < 0)
    known[API] = ((kind == SpanKind.LAUNCH) | (kind == SpanKind.SYNC)) & host
    known[MARKER] = (kind == SpanKind.HOST_OP) & host
    parts = {d: _take(table, np.flatnonzero(rows), d, texts) for d, rows in known.items()}
    steps = []
    for step in np.unique(table.step).tolist():
        mine = (table.step == step) & (known[API] | known[MARKER])
        begin = int(table.start_ns[mine].min())
        steps += [(begin, 1, step, 0, Edge.BEGIN, 0), (begin + 1, 1, step, 0, Edge.END, 0)]
    steps.sort()
    # The readers know no linger: an end just before the next beginning.
    ends = [one[0] - 1 for one in steps[2::2]] + [int(table.end_ns.max())]
    steps = [(ends[i // 2], *one[1:]) if i % 2 else one for i, one in enumerate(steps)]
    return Batch(
        strings=tuple(texts),
        kernels=parts[KERNEL],
        copies=parts[COPY],
        sets=parts[SET],
        apis=parts[API],
        markers=parts[MARKER],
        steps=np.array(steps, STEP),
        until_ns=int(table.end_ns.max()) + 10**10,
    )


def words(table: SpanTable, rows) -> list[tuple]:
    """Name and time of each row and of its parent, and its step."""

    def one(row: int) -> tuple:
        if row < 0 or table.kind[row] == SpanKind.WORKER_STEP:
            return ("worker step",)
        name = (
            table.name_of(row).partition(" (")[0]
            if table.kind[row] == SpanKind.MEMCPY
            else table.name_of(row)
        )
        return name, int(table.start_ns[row]), int(table.duration_ns[row])

    return sorted(
        (int(table.step[row]), *one(row), "<", *one(int(table.parent[row]))) for row in rows
    )


@pytest.mark.parametrize("folder", ["vllm_gptoss_b200_tp8_rank0", "hta_ddp_rank1of2"])
def test_gpu_work_has_the_step_and_the_parent_that_the_reader_gave_it(traces: Path, folder: str):
    table, _ = classify(read([traces / folder]).table)
    maker = StepMaker(Settings())
    steps = maker.add(taken_apart(table)) + maker.flush()
    assert [one.step for one in steps] == np.unique(table.step).tolist()
    live = sorted(
        word for one in steps for word in words(one.table, np.flatnonzero(one.table.on_gpu))
    )
    assert live == words(table, np.flatnonzero(table.on_gpu))
    assert (maker.counts.late, maker.waiting) == (0, 0)


def test_launches_stand_in_the_ranges_that_the_reader_found(traces: Path):
    table, _ = classify(read([traces / "vllm_gptoss_b200_tp8_rank0"]).table)
    maker = StepMaker(Settings())
    steps = maker.add(taken_apart(table)) + maker.flush()
    live = {
        word
        for one in steps
        for word in words(one.table, np.flatnonzero(one.table.kind == SpanKind.LAUNCH))
    }
    found = set(words(table, np.flatnonzero(table.kind == SpanKind.LAUNCH)))
    assert len(live) > 500
    assert live <= found
