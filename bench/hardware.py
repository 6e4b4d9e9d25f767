"""What reading hardware metrics and logs costs: data points a second, and a look-up.

python bench/hardware.py [gpus]
"""

from __future__ import annotations

import sys
import time
from collections import Counter

from kat_otel.config import HardwareConfig
from kat_otel.hardware import HardwareStore
from kat_otel.hardware.decode import read_metrics
from kat_otel.lmdia.decode import workers
from kat_otel.lmdia.hardware import Machines
from tests.hardware.otlp import log_request

SECOND = 1_000_000_000
BEGIN = 1_760_000_000 * SECOND


def main() -> None:
    gpus = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    members = [
        worker
        for host in range(gpus // 8)
        for worker in workers(8, instance="bench", host=f"node-{host}")
    ]
    machines = Machines(
        members, "thermal", 3, BEGIN, BEGIN + 60 * SECOND, BEGIN + 120 * SECOND, 5.0
    )
    requests = list(machines.requests())
    store = HardwareStore(HardwareConfig())
    begun = time.perf_counter()
    points = sum(store.add(r.signal, r.data) for r in requests)
    took = time.perf_counter() - begun
    print(
        f"known metrics: {points / took:,.0f} points/s ({points:,} points, {len(store):,} series)"
    )
    begun = time.perf_counter()
    for request in requests:
        read_metrics(request.data, Counter())
    took = time.perf_counter() - begun
    print(f"  of which decoding alone: {points / took:,.0f} points/s")
    unknown = [r.data.replace(b"DCGM_FI", b"XXXX_FI") for r in requests]
    begun = time.perf_counter()
    for data in unknown:
        store.add("metrics", data)
    took = time.perf_counter() - begun
    size = sum(map(len, unknown))
    print(f"unknown GPU metrics: {size / took / 1e6:,.0f} MB/s")
    line = "INFO Engine 000: Avg prompt throughput: 0.0 tokens/s, Running: 8 reqs, Waiting: 0 reqs"
    data = log_request(line, BEGIN)
    begun = time.perf_counter()
    for _ in range(20_000):
        store.add("logs", data)
    print(
        f"everyday log lines, one a request: {20_000 / (time.perf_counter() - begun):,.0f} lines/s"
    )
    looked = members[:33]
    begun = time.perf_counter()
    for _ in range(10):
        store.lookup(
            instance="bench",
            hosts=[m.host for m in looked],
            hardware_ids=[m.hardware_id for m in looked],
            ranks=list(range(len(looked))),
            begin_ns=BEGIN + 60 * SECOND,
            end_ns=BEGIN + 90 * SECOND,
        )
    print(f"look-up of {len(looked)} ranks: {(time.perf_counter() - begun) * 100:.1f} ms")


if __name__ == "__main__":
    main()
