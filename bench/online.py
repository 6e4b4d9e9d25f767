"""The online way on loopback: encode, decode, and the whole processor, in µs a span.

    python bench/online.py [spans_per_rank [steps]]

Eight ranks send kernels with eight attributes each; the processor runs in this process, so
sender, receiver and judge share the cores. Prints one line a figure.
"""

import sys
import time

import numpy as np

from kat_otel.config import Config, ExporterConfig, ReceiverConfig
from kat_otel.otlp import decode_traces, encode_traces
from kat_otel.processor.replay import send_spans, stamp
from kat_otel.processor.server import Processor
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder

RANKS = 8


def fleet(kernels: int, steps: int) -> SpanTable:
    """One worker step and ``kernels`` kernels for each of 8 ranks and every step."""
    random = np.random.default_rng(0)
    builder = SpanTableBuilder()
    names = [builder.strings.add(f"void gemm_{k}<float, {k}>(int)") for k in range(kernels)]
    grid = builder.strings.add("132,1,1")
    length = random.integers(5_000, 50_000, kernels)
    begins = np.concatenate([[0], np.cumsum(length + 1_000)[:-1]])
    for rank in range(RANKS):
        resource = builder.add_resource(Resource(rank=rank, world_size=RANKS))
        for step in range(steps):
            count = kernels + 1
            ids = 1 + rank + RANKS * (np.arange(count) + step * count)
            begin = step * (begins[-1] + 100_000)
            noise = random.normal(1, 0.01, kernels)
            builder.append(
                count,
                span_id=ids,
                parent_id=[0, *[ids[0]] * kernels],
                start_ns=np.concatenate([[begin], begin + begins]),
                duration_ns=[begins[-1] + 60_000, *(length * noise).astype(int)],
                name=[builder.strings.add("worker step"), *names],
                kind=[SpanKind.WORKER_STEP, *[SpanKind.KERNEL] * kernels],
                resource=resource,
                step=step,
                stream=[-1, *[7] * kernels],
                correlation=[-1, *range(kernels)],
                grid=grid,
                block=grid,
            )
    return stamp(builder.build(), "bench", 1, time.time_ns())


def main() -> None:
    kernels = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    table = fleet(kernels, steps)
    begun = time.perf_counter()
    wire = list(encode_traces(table))
    encoded = time.perf_counter()
    for data in wire:
        decode_traces(data)
    decoded = time.perf_counter()
    size = sum(map(len, wire))
    print(f"spans   {len(table):>10,}  {size / len(table):.0f} bytes each")
    print(f"encode  {(encoded - begun) / len(table) * 1e6:>10.1f} µs a span")
    print(f"decode  {(decoded - encoded) / len(table) * 1e6:>10.1f} µs a span")
    receiver = ReceiverConfig(endpoint="127.0.0.1:0")
    config = Config(receiver=receiver, exporter=ExporterConfig(endpoint=None))
    judged = []
    with Processor(config, on_report=lambda report, _: judged.append(report)) as processor:
        begun, busy = time.perf_counter(), time.process_time()
        send_spans(table, f"127.0.0.1:{processor.port}")
    took, busy = time.perf_counter() - begun, time.process_time() - busy
    print(f"online  {took / len(table) * 1e6:>10.1f} µs a span, {len(judged) / took:.1f} steps/s")
    print(f"        {busy / len(table) * 1e6:>10.1f} µs of CPU a span, sender and judge together")
    print(f"books   {processor.books.balance()}")


if __name__ == "__main__":
    main()
