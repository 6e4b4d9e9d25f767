"""The spans of a replayed program: worker step > host operation > call > GPU work.

What a worker with live capture would send, with ids that every rank derives alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel import identity, semconv
from kat_otel.kernels import Semantics
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.replay import Times
from kat_otel.spans import NO_PARENT, UNKNOWN, SpanKind, SpanTable, SpanTableBuilder

__all__ = ["WORKER_STEP", "to_table"]

WORKER_STEP = "execute_model"
_THREAD = 1


def to_table(
    program: Program,
    times: Times,
    *,
    step: int = 0,
    zero_unix_ns: int = 0,
    nonce: int = 0,
    rows: Sequence[int] | None = None,
) -> SpanTable:
    """Returns the spans of one step.

    Args:
        program: what was replayed.
        times: its replay.
        step: number of the step; trace id, correlation ids and sequence numbers follow from it.
        zero_unix_ns: Unix time of the step's zero.
        nonce: of the instance (:func:`kat_otel.identity.nonce_of`).
        rows: rows of the program whose spans are wanted; all ranks if None.

    Returns:
        Start and duration cut down to the program's clock resolution, as profilers do.
    """
    builder = SpanTableBuilder()
    trace_hi, trace_lo = identity.trace_ids(nonce, np.array([step]))
    static = _Static(program, builder, step)
    for row in range(program.ranks) if rows is None else rows:
        resource = builder.add_resource(program.resources[row])
        rank = program.resources[row].rank
        columns, count = _rank_columns(program, times, row, static, len(builder))
        columns["start_ns"], columns["duration_ns"] = _quantise(
            columns.pop("begin"), columns.pop("end"), zero_unix_ns, program.resolution_ns
        )
        ids = identity.span_ids(np.full(count, trace_lo[0]), np.full(count, rank), np.arange(count))
        parent = columns["parent"] - len(builder)
        parent_id = np.where(
            parent >= 0, ids[np.maximum(parent, 0)], identity.root_span_id(trace_lo)[0]
        )
        attributes: Mapping[str, str | bool | int | float] = {
            semconv.GROUP_SIZE: program.ranks,
            semconv.SPAN_COUNT: count,
            semconv.DROPPED_COUNT: 0,
        }
        builder.append(
            count,
            attributes={0: attributes},
            resource=resource,
            step=step,
            trace_hi=trace_hi[0],
            trace_lo=trace_lo[0],
            span_id=ids,
            parent_id=parent_id,
            **columns,
        )
    return builder.build()


def _quantise(
    begin: NDArray[np.float64], end: NDArray[np.float64], zero: int, resolution: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    start = zero + np.rint(begin).astype(np.int64)
    duration = np.rint(end).astype(np.int64) - np.rint(begin).astype(np.int64)
    return start // resolution * resolution, np.maximum(duration, 0) // resolution * resolution


class _Static:
    """What is the same on every rank, looked up once: interned names and ids per operation."""

    def __init__(self, program: Program, builder: SpanTableBuilder, step: int) -> None:
        ops = program.operations
        add = builder.strings.add
        self.worker_step = add(WORKER_STEP)
        self.name = np.array([add(op.name) for op in ops], np.int32)
        self.call = np.array([add(op.call) for op in ops], np.int32)
        self.grid = _grids(program, builder)
        self.block = np.array([add(op.block) for op in ops], np.int32)
        self.group = np.array([add(op.group) for op in ops], np.int32)
        self.host_name = np.array([add(h.name) for h in program.host_operations], np.int32)
        self.host_parent = np.array([h.parent for h in program.host_operations], np.int64)
        self.kind = np.array([op.kind for op in ops], np.uint8)
        self.stream = np.array([op.stream for op in ops], np.int32)
        self.bytes = np.array([op.nbytes for op in ops], np.int64)
        self.graph = np.array([op.graph for op in ops], np.int32)
        self.graph_node = np.array([op.graph_node for op in ops], np.int64)
        self.host = np.array([op.host for op in ops], np.int64)
        launcher = np.array([op.graph_launch for op in ops], np.int64)
        own = np.arange(len(ops))
        self.launcher = np.where(launcher >= 0, launcher, own)
        self.on_gpu = self.kind >= SpanKind.KERNEL
        self.has_call = np.array([op.call != "" for op in ops], np.bool_)
        self.call_kind = np.where(
            self.kind == SpanKind.SYNC, np.uint8(SpanKind.SYNC), np.uint8(SpanKind.LAUNCH)
        )
        self.correlation = 1 + step * len(ops) + self.launcher
        self.sequence = _sequences(program, step)


def _grids(program: Program, builder: SpanTableBuilder) -> NDArray[np.int32]:
    """Returns the launch shape of each rank's operations, ``(r, n)``, interned."""
    add = builder.strings.add
    common = np.array([add(op.grid) for op in program.operations], np.int32)
    if program.grid is None:
        return np.broadcast_to(common, program.present.shape)
    sizes, index = np.unique(program.grid, return_inverse=True)
    texts = np.array([add(f"{size},1,1") for size in sizes.tolist()], np.int32)
    return np.where(program.grid > 0, texts[index.reshape(program.grid.shape)], common)


def _sequences(program: Program, step: int) -> NDArray[np.int64]:
    """Returns each collective's number in its named communicator; UNKNOWN without a name."""
    totals: dict[str, int] = {}
    for op in program.operations:
        totals[op.group] = totals.get(op.group, 0) + (op.semantics != Semantics.NONE)
    seen: dict[str, int] = {}
    numbers = np.full(len(program), UNKNOWN, np.int64)
    for i, op in enumerate(program.operations):
        if op.semantics != Semantics.NONE and op.group:
            numbers[i] = step * totals[op.group] + seen.get(op.group, 0)
            seen[op.group] = seen.get(op.group, 0) + 1
    return numbers


def _rank_columns(
    program: Program, times: Times, row: int, static: _Static, first: int
) -> tuple[dict[str, NDArray[Any]], int]:
    """Returns the columns of one rank; rows are worker step, host operations, calls, GPU work."""
    present = program.present[row]
    calls = np.flatnonzero(present & static.has_call)
    work = np.flatnonzero(present & static.on_gpu)
    host_rows, host_begin, host_end = _host_spans(program, times, row, calls, static)

    row_of_host = np.full(len(program.host_operations) + 1, 0)  # 0: the worker step itself
    row_of_host[host_rows] = 1 + np.arange(len(host_rows))
    at_calls = 1 + len(host_rows)
    row_of_call = np.full(len(program), 0)
    row_of_call[calls] = at_calls + np.arange(len(calls))
    host_parent = static.host_parent[host_rows]

    def column(step: object, host: object, call: object, gpu: object) -> NDArray[Any]:
        return np.concatenate(
            [
                np.atleast_1d(np.asarray(step)),
                np.broadcast_to(np.asarray(host), len(host_rows)),
                np.broadcast_to(np.asarray(call), len(calls)),
                np.broadcast_to(np.asarray(gpu), len(work)),
            ]
        )

    begin = column(
        times.begin[row], host_begin, times.call_start[row, calls], times.gpu_start[row, work]
    )
    end = column(times.end[row], host_end, times.call_end[row, calls], times.gpu_end[row, work])
    begin[0] = min(begin[0], begin.min())  # a host range may reach out before the first call
    end[0] = max(end[0], end.max())
    columns: dict[str, NDArray[Any]] = {
        "begin": begin,
        "end": end,
        "parent": column(
            NO_PARENT,
            first + row_of_host[host_parent],
            first + row_of_host[static.host[calls]],
            first + row_of_call[static.launcher[work]],
        ),
        "name": column(
            static.worker_step, static.host_name[host_rows], static.call[calls], static.name[work]
        ),
        "kind": column(
            SpanKind.WORKER_STEP, SpanKind.HOST_OP, static.call_kind[calls], static.kind[work]
        ),
        "thread": column(_THREAD, _THREAD, _THREAD, UNKNOWN),
        "stream": column(UNKNOWN, UNKNOWN, UNKNOWN, static.stream[work]),
        "correlation": column(
            UNKNOWN, UNKNOWN, static.correlation[calls], static.correlation[work]
        ),
        "graph": column(UNKNOWN, UNKNOWN, static.graph[calls], static.graph[work]),
        "graph_node": column(UNKNOWN, UNKNOWN, UNKNOWN, static.graph_node[work]),
        "grid": column(0, 0, 0, static.grid[row, work]),
        "block": column(0, 0, 0, static.block[work]),
        "bytes": column(UNKNOWN, UNKNOWN, UNKNOWN, static.bytes[work]),
        "group": column(0, 0, 0, static.group[work]),
        "sequence": column(UNKNOWN, UNKNOWN, UNKNOWN, static.sequence[work]),
    }
    return columns, len(begin)


def _host_spans(
    program: Program, times: Times, row: int, calls: NDArray[np.int64], static: _Static
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns the host operations that this rank has, with begin and end.

    An operation covers its calls and the operations inside it, and reaches out by its lead and
    tail, but never over the call before or after, which a fault may have moved closer.
    """
    count = len(program.host_operations)
    begin: NDArray[np.float64] = np.full(count, np.inf)
    end: NDArray[np.float64] = np.full(count, -np.inf)
    inside = static.host[calls]
    within = inside >= 0
    start, stop = times.call_start[row, calls], times.call_end[row, calls]
    np.minimum.at(begin, inside[within], start[within])
    np.maximum.at(end, inside[within], stop[within])
    sorted_start: NDArray[np.float64] = np.sort(start)
    sorted_stop: NDArray[np.float64] = np.sort(stop)
    for index in range(count - 1, -1, -1):  # children before their parents
        host = program.host_operations[index]
        if not np.isfinite(begin[index]):
            continue
        before = int(np.searchsorted(sorted_stop, float(begin[index]), side="right")) - 1
        floor = sorted_stop[before] if before >= 0 else -np.inf
        after = int(np.searchsorted(sorted_start, float(end[index]), side="left"))
        ceiling = sorted_start[after] if after < len(sorted_start) else np.inf
        begin[index] = min(begin[index], max(begin[index] - host.lead_ns, floor))
        end[index] = max(end[index], min(end[index] + host.tail_ns, ceiling))
        if host.parent >= 0:
            begin[host.parent] = min(begin[host.parent], begin[index])
            end[host.parent] = max(end[host.parent], end[index])
    rows = np.flatnonzero(np.isfinite(begin))
    return rows, begin[rows], end[rows]
