"""How fast OTLP bytes become columns, against the protobuf library, on one core.

``python bench/decode.py [SPANS ...]``: kernel spans of 8 attributes, about 330 bytes each.
Ratios first: absolute figures are the machine's.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel.otlp import decode_traces, encode_traces, reference
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder, StringTable

SIZES = (1_000, 5_000, 10_000, 20_000, 50_000)


def kernels(count: int) -> SpanTable:
    """Kernel spans as a worker sends them: a few hundred names, 8 attributes each."""
    rng = np.random.default_rng(4)
    builder = SpanTableBuilder()
    builder.add_resource(Resource(rank=3, world_size=8, instance="llama-70b", host="node-1"))
    names = np.array(
        [
            builder.strings.add(f"void gemm_{i}<cutlass::half_t, {i % 9}, 128>(Params::Arguments)")
            for i in range(300)
        ]
    )
    grids = np.array([builder.strings.add(f"{i},{i % 7 + 1},1") for i in range(1, 129)])
    blocks = np.array([builder.strings.add(f"{32 * i},1,1") for i in range(1, 9)])
    start = 1_770_000_000_000_000_000 + np.cumsum(rng.integers(2_000, 30_000, count))
    builder.append(
        count,
        trace_hi=rng.integers(1, 2**63),
        trace_lo=rng.integers(1, 2**63),
        span_id=rng.integers(1, 2**63, count),
        parent_id=rng.integers(1, 2**63, count),
        start_ns=start,
        duration_ns=rng.integers(1_000, 200_000, count),
        name=names[rng.integers(0, 300, count)],
        kind=SpanKind.KERNEL,
        step=4_711,
        stream=7,
        correlation=rng.integers(10_000, 2**20, count),
        graph=12,
        graph_node=rng.integers(1, 3_000, count),
        grid=grids[rng.integers(0, 128, count)],
        block=blocks[rng.integers(0, 8, count)],
    )
    return builder.build()


def seconds(work: Callable[[], object], at_least: float = 0.5) -> float:
    """Best time of one call, over calls that take ``at_least`` together."""
    best, spent = float("inf"), 0.0
    while spent < at_least:
        begin = time.perf_counter()
        work()
        took = time.perf_counter() - begin
        best, spent = min(best, took), spent + took
    return best


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    sizes = [int(argument) for argument in sys.argv[1:]] or SIZES
    print(
        "spans    bytes/span  vs library+walk  vs library alone  spans/s     without shared texts"
    )
    for count in sizes:
        table = kernels(count)
        (wire,) = encode_traces(table, limit=2**30)
        shared = StringTable()
        ours = seconds(lambda wire=wire, shared=shared: decode_traces(wire, strings=shared))
        alone = seconds(lambda wire=wire: decode_traces(wire))
        walked = seconds(lambda wire=wire: reference.table_of(reference.parse(wire)))
        parsed = seconds(lambda wire=wire: ExportTraceServiceRequest.FromString(wire))
        print(
            f"{count:6,}  {len(wire) / count:10.0f}  {walked / ours:14.1f}x {parsed / ours:16.1f}x "
            f" {count / ours:10,.0f}  {count / alone:10,.0f}"
        )


if __name__ == "__main__":
    main()
