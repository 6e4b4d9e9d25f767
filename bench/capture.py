"""What capture costs a kernel, by a stand-in for CUPTI that emits 100,000 launches and kernels/s.

``python bench/capture.py [SECONDS] [RATE]``. CPU time: in CUPTI's callbacks (the goal is 0.1 µs for
a kernel and its launch's record), in the worker's process in all, and in the reader that makes
columns of records. Beside it, in the same process afterwards: an object a record in Python, and a
span a kernel by the OpenTelemetry SDK. No GPU: the records are real in form, not in origin.
"""

from __future__ import annotations

import logging
import os
import resource
import struct
import sys
import threading
import time
import timeit
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kat_otel.instrumentation.capture.cupti import Capture
from kat_otel.instrumentation.capture.records import Loss
from kat_otel.instrumentation.capture.region import RegionSource
from kat_otel.instrumentation.settings import Settings
from tests.instrumentation.standin import Standin

GOAL_NS = 100


@dataclass
class Cost:
    """ns of CPU time a kernel, and what was lost."""

    callback: float
    worker: float
    reader: float
    kernels: int
    loss: Loss


def capture(kernels: int, rate: int) -> Cost:
    """Captures a load and reads it on a thread, every 100 ms, as the helper process does."""
    standin = Standin()
    begun = Capture.start(Settings(cupti=standin.path))
    source = RegionSource(begun.fd)
    standin.load(kernels, rate)
    read, spent = 0, 0.0
    while True:
        since = time.thread_time()
        batch = source.take(0.5)
        spent += time.thread_time() - since
        read += len(batch.kernels)
        if read + batch.loss.records >= kernels or batch.ended:
            break
    standin.wait()
    callback = standin.callbacks()[0]
    busy = begun.busy_ns()
    begun.stop()
    source.close()
    return Cost(callback / kernels, busy / kernels, 1e9 * spent / kernels, read, batch.loss)


def mark() -> float:
    """Ns of a step's mark, on the server's thread."""
    begun = Capture.start(Settings(), cupti=False)
    source = RegionSource(begun.fd)
    each = min(timeit.repeat(lambda: begun.mark(1, 0, 0, 4), number=5_000, repeat=5)) / 5_000
    begun.stop()
    source.close()
    return 1e9 * each


class Row:
    """A record as an object with attributes, as bindings hand them to Python."""

    __slots__ = ("correlation", "device", "end", "kind", "name", "start", "stream")


def objects(count: int = 100_000) -> float:
    """Ns a kernel and its launch, each made an object in Python."""
    kernel, launch = struct.Struct("<I12xQQ8xI4xI40xI8xQ"), struct.Struct("<IIQQIIII")
    one = bytes(launch.size) + bytes(248)
    buffer = one * 200

    def walk() -> None:
        rows: list[Row] = []
        for at in range(0, len(buffer), len(one)):
            row = Row()
            row.kind, row.name, row.start, row.end, *_ = launch.unpack_from(buffer, at)
            rows.append(row)
            row = Row()
            (
                row.kind,
                row.start,
                row.end,
                row.device,
                row.stream,
                row.correlation,
                row.name,
            ) = kernel.unpack_from(buffer, at + launch.size)
            rows.append(row)

    return 1e9 * min(timeit.repeat(walk, number=count // 200, repeat=3)) / count


class Nowhere(SpanExporter):
    """Takes spans and does nothing with them: encoding and sending would come on top."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        return SpanExportResult.SUCCESS


def sdk(count: int = 20_000) -> float:
    """Ns a span of the OpenTelemetry SDK with five attributes, processor included."""
    logging.disable(logging.WARNING)  # its queue may overflow: that is cheaper, not dearer
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=count))
    tracer = provider.get_tracer("bench")
    began = time.process_time()
    for i in range(count):
        attributes = {"stream": 7, "correlation": i, "grid": "128,1,1", "block": "256,1,1", "d": 0}
        span = tracer.start_span("gemm", start_time=1_000 + i, attributes=attributes)
        span.end(end_time=2_000 + i)
    provider.force_flush()
    each = 1e9 * (time.process_time() - began) / count
    provider.shutdown()
    return each


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    rate = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    threading.current_thread().name = "bench"
    capture(rate // 10, rate)  # warm
    cost = capture(int(seconds * rate), rate)
    per_object, per_span = objects(), sdk()
    ours = cost.worker + cost.reader
    print(f"{rate:,} kernels/s and their launches for {seconds:g} s, {os.cpu_count()} cores")
    print(f"  lost of them                    {cost.loss}")
    met = "met" if cost.callback <= GOAL_NS else "MISSED"
    print(f"  in CUPTI's callbacks      {cost.callback:8.0f} ns a kernel (goal {GOAL_NS}: {met})")
    print(f"  in the worker in all      {cost.worker:8.0f} ns a kernel")
    print(f"  reader, to columns        {cost.reader:8.0f} ns a kernel")
    print(f"  a step's mark             {mark():8.0f} ns")
    print(f"  an object a record        {per_object:8.0f} ns a kernel, {per_object / ours:.0f}x")
    print(f"  a span of the SDK         {per_span:8.0f} ns a kernel, {per_span / ours:.0f}x")
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"  most memory of this process     {mib} MiB")
    print("  cupti-python's own objects: not measured, they need a driver")


if __name__ == "__main__":
    main()
