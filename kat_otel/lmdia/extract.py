"""A program from a real trace: what each rank owned, so that replaying it gives the trace back.

Which of the possible reasons made GPU work start when it did is decided by times: launch,
stream or an event is the one that came last. Event waits are not in such traces; they are
inferred where GPU work starts right after work on another stream ended and nothing else
explains its start. A collective on a stream of its own waits for the main stream's
last work launched before it, as torch's process groups make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import CollectivePattern, Semantics, classify, family
from kat_otel.lmdia.measure import event_waits, measure, own_times
from kat_otel.lmdia.merge import merge_orders
from kat_otel.lmdia.observe import Observed, Rows, observe
from kat_otel.lmdia.program import ALL_STREAMS, HostOperation, Operation, Program
from kat_otel.spans import UNKNOWN, SpanKind, SpanTable

__all__ = ["extract"]


def extract(table: SpanTable, extra_patterns: Sequence[CollectivePattern] = ()) -> Program:
    """Returns the program of one step, one row per resource with GPU work.

    Raises:
        ValueError: the table has no GPU work, or the ranks have different collectives.
    """
    table, meaning = classify(table, extra_patterns)
    chosen = [int(r) for r in np.unique(table.resource[table.on_gpu])]
    if not chosen:
        raise ValueError("the table has no GPU work to make a program from")
    observed = [observe(table, resource) for resource in chosen]
    places, operations, hosts = _common_operations(table, meaning, observed)
    measured = measure(table, observed, places, operations)
    waits = event_waits(operations, measured)
    operations = [replace(op, after=wait) for op, wait in zip(operations, waits, strict=True)]
    times = own_times(operations, measured)
    return Program(
        operations=tuple(operations),
        host_operations=tuple(hosts),
        resources=tuple(table.resources[r] for r in chosen),
        present=measured.present,
        start=measured.start,
        gap=times.gap,
        call=times.call,
        latency=times.latency,
        dispatch=times.dispatch,
        own=times.own,
        resolution_ns=max(table.resources[r].resolution_ns for r in chosen),
        notes=(f"extracted from a real trace of {len(chosen)} ranks",),
    )


def _common_operations(
    table: SpanTable, meaning: NDArray[np.uint8], observed: Sequence[Observed]
) -> tuple[list[Rows], list[Operation], list[HostOperation]]:
    """Returns each rank's places in the merged order, and what stands there."""
    names: dict[str, int] = {}
    sequences: list[list[int]] = []
    anchors: set[int] = set()
    for items in observed:
        shown = np.where(items.work >= 0, items.work, items.call)
        sequence: list[int] = []
        for row, work in zip(shown.tolist(), items.work.tolist(), strict=True):
            text = f"{int(table.kind[row])}:{family(table.name_of(row))}"
            key = names.setdefault(text, len(names))
            if work >= 0 and meaning[work] != Semantics.NONE:
                anchors.add(key)
            sequence.append(key)
        sequences.append(sequence)
    places = merge_orders(sequences, frozenset(anchors))
    length = 1 + max(int(place[-1]) for place in places if len(place))
    operations: list[Operation | None] = [None] * length
    hosts: list[HostOperation] = []
    for items, place in zip(observed, places, strict=True):
        host_of: dict[int, int] = {}
        last_stream = ALL_STREAMS
        for item, at in enumerate(place.tolist()):
            work = int(items.work[item])
            if work >= 0:
                last_stream = int(table.stream[work])
            if operations[at] is not None:
                continue
            row = int(items.host[item])
            if row >= 0 and row not in host_of:
                host_of[row] = len(hosts)
                hosts.append(_host_operation(table, items, row))
            launcher = int(items.launcher[item])
            operations[at] = _operation(
                table,
                meaning,
                int(items.call[item]),
                work,
                stream=last_stream,
                host=host_of.get(row, UNKNOWN),
                launcher=int(place[launcher]) if launcher >= 0 else UNKNOWN,
            )
    return places, [op for op in operations if op is not None], hosts


def _host_operation(table: SpanTable, items: Observed, row: int) -> HostOperation:
    calls = items.call[items.host == row]
    lead = float(table.start_ns[calls].min() - table.start_ns[row])
    tail = float(table.end_ns[row] - table.end_ns[calls].max())
    return HostOperation(table.name_of(row), lead_ns=max(0.0, lead), tail_ns=max(0.0, tail))


def _operation(
    table: SpanTable,
    meaning: NDArray[np.uint8],
    call: int,
    work: int,
    *,
    stream: int,
    host: int,
    launcher: int,
) -> Operation:
    call_name = table.name_of(call) if call >= 0 else ""
    if work < 0:
        waits = "Synchronize" in call_name
        whole = "Device" in call_name or "Ctx" in call_name
        return Operation(
            call_name,
            SpanKind.SYNC if waits else SpanKind.LAUNCH,
            stream=(ALL_STREAMS if whole else stream) if waits else UNKNOWN,
            call=call_name,
            host=host,
            graph=UNKNOWN if waits else int(table.graph[call]),
        )
    return Operation(
        table.name_of(work),
        SpanKind(int(table.kind[work])),
        stream=int(table.stream[work]),
        call=call_name,
        host=host,
        semantics=Semantics(int(meaning[work])),
        group=table.text(int(table.group[work])),
        grid=table.text(int(table.grid[work])),
        block=table.text(int(table.block[work])),
        nbytes=int(table.bytes[work]),
        graph_launch=launcher,
        graph=int(table.graph[work]),
        graph_node=int(table.graph_node[work]),
    )
