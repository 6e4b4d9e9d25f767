"""What it costs a worker to make OTLP bytes of its spans, on one core.

``python bench/pack.py [LAYERS ...]``: steps of a 70B-like model's decoding, packed by NumPy
(:mod:`kat_otel.instrumentation.sending.pack`), beside protobuf's objects, and spans and encoder of
OpenTelemetry's SDK. Ratios first: absolute figures are the machine's.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from kat_otel import semconv
from kat_otel.digest import digest_of
from kat_otel.fields import KIND_NAMES, SPAN_INTS, SPAN_TEXTS
from kat_otel.instrumentation.capture.records import StepFlag
from kat_otel.instrumentation.identity.worker import Worker
from kat_otel.instrumentation.sending.digests import Digests
from kat_otel.instrumentation.sending.ids import identified, with_digest
from kat_otel.instrumentation.sending.native_pack import fastest_packer
from kat_otel.instrumentation.sending.pack import Packer, request
from kat_otel.instrumentation.steps.step import Step
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.table import to_table
from kat_otel.spans import SpanKind as Kind
from kat_otel.spans import SpanTable, StringTable

LAYERS = (20, 80)
KINDS = {int(kind): name for kind, name in KIND_NAMES.items()}


def steps(layers: int, count: int = 8) -> list[SpanTable]:
    """Steps of rank 0 that share their texts, as a step maker's do."""
    program = decode_program(replace(LLAMA_70B, layers=layers), workers(8, instance="llama"))
    group, strings = Group(program, 7), StringTable()
    made: list[SpanTable] = []
    for number in range(count):
        noisy, times = group.play(number)
        zero = 1_770_000_000_000_000_000 + number * 10**8
        table = to_table(noisy, times, step=number, zero_unix_ns=zero, rows=[0])
        moved = np.array([strings.add(text) for text in table.strings], np.int32)
        texts = {name: moved[getattr(table, name)] for name in ("name", "grid", "block", "group")}
        made.append(replace(table, strings=strings, attributes={}, **texts))
    return made


def by_protobuf(table: SpanTable) -> bytes:
    """Fills protobuf's objects attribute by attribute."""
    message = ExportTraceServiceRequest()
    resource_spans = message.resource_spans.add()
    spans = resource_spans.scope_spans.add().spans
    for row in range(len(table)):
        span = spans.add(
            trace_id=int(table.trace_hi[row]).to_bytes(8, "big")
            + int(table.trace_lo[row]).to_bytes(8, "big"),
            span_id=int(table.span_id[row]).to_bytes(8, "big"),
            parent_span_id=int(table.parent_id[row]).to_bytes(8, "big"),
            name=table.name_of(row),
            kind=1,
            start_time_unix_nano=int(table.start_ns[row]),
            end_time_unix_nano=int(table.start_ns[row] + table.duration_ns[row]),
        )
        for key, value in attributes_of(table, row).items():
            pair = span.attributes.add(key=key)
            if isinstance(value, int):
                pair.value.int_value = value
            else:
                pair.value.string_value = value
    return message.SerializeToString()


def attributes_of(table: SpanTable, row: int) -> dict[str, str | int]:
    """What a span says in its attributes."""
    said: dict[str, str | int] = {semconv.SPAN_KIND: KINDS[int(table.kind[row])]}
    if table.kind[row] == Kind.KERNEL:
        said[semconv.KERNEL_NAME] = table.name_of(row)
    for key, (column, _) in SPAN_INTS.items():
        if (value := int(getattr(table, column)[row])) >= 0:
            said[key] = value
    for key, column in SPAN_TEXTS.items():
        if text := table.strings[int(getattr(table, column)[row])]:
            said[key] = text
    return said


def sdk_spans(table: SpanTable) -> list[ReadableSpan]:
    """The objects that OpenTelemetry's SDK hands to its exporter."""
    resource, scope = SdkResource({"service.name": "vllm"}), InstrumentationScope("kat_otel")
    trace = int(table.trace_hi[0]) << 64 | int(table.trace_lo[0])
    sampled = TraceFlags(TraceFlags.SAMPLED)
    return [
        ReadableSpan(
            name=table.name_of(row),
            context=SpanContext(trace, int(table.span_id[row]), False, sampled),
            parent=SpanContext(trace, int(table.parent_id[row]), False, sampled),
            resource=resource,
            attributes=attributes_of(table, row),
            kind=SpanKind.INTERNAL,
            instrumentation_scope=scope,
            start_time=int(table.start_ns[row]),
            end_time=int(table.start_ns[row] + table.duration_ns[row]),
        )
        for row in range(len(table))
    ]


def by_sdk(table: SpanTable) -> int:
    """Makes the SDK's spans, and encodes them if its exporter is installed."""
    spans = sdk_spans(table)
    try:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import (  # noqa: PLC0415
            encode_spans,
        )
    except ImportError:
        return len(spans)
    return len(encode_spans(spans).SerializeToString())


def seconds(work: Callable[[], object], at_least: float = 1.0) -> float:
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
    try:
        import opentelemetry.exporter.otlp.proto.common.trace_encoder  # noqa: F401, PLC0415

        sdk = "SDK"
    except ImportError:
        sdk = "SDK without encoding (pip install opentelemetry-exporter-otlp-proto-common)"
    print(
        "µs a span; spans   bytes/span  pack   pack, first sight  ids    digest  protobuf  " + sdk
    )
    for layers in [int(argument) for argument in sys.argv[1:]] or LAYERS:
        tables = steps(layers)
        worker = Worker(tables[0].resources[0], 5, 8)
        packer, turns = fastest_packer(), cycle(tables)

        def packed(turns: Iterator[SpanTable] = turns, packer: Packer = packer) -> None:
            table = next(turns)
            for lot in packer.pack(table):
                request(table.resources[0], lot)

        def anew(tables: list[SpanTable] = tables) -> None:
            for lot in fastest_packer().pack(tables[0]):
                request(tables[0].resources[0], lot)

        step = Step(3, 0, StepFlag.NONE, tables[3])
        table = with_digest(step, worker, Digests.fastest(), named=False)
        figures = [
            seconds(packed),
            seconds(anew),
            seconds(lambda table=table: identified(table, 0, 5, 3, 0)),
            seconds(lambda table=table: digest_of(table)),
            seconds(lambda tables=tables: by_protobuf(tables[0])),
            seconds(lambda tables=tables: by_sdk(tables[0])),
        ]
        count = len(tables[0])
        size = sum(sum(map(len, lot)) for lot in fastest_packer().pack(tables[0])) / count
        own, first, ids, digest, protobuf, theirs = (1e6 * figure / count for figure in figures)
        print(
            f"           {count:6,}   {size:6.0f}     {own:6.3f}   {first:6.3f}            "
            f"{ids:6.3f}  {digest:6.3f}  {protobuf:5.1f} ({protobuf / own:.0f}x)  "
            f"{theirs:5.1f} ({theirs / own:.0f}x)"
        )


if __name__ == "__main__":
    main()
