"""`kat process` beside what a collector offers for the same place, on one core each.

    python bench/collector_peers.py [--spans N] [--ranks 8] [--layers 40]

The same requests, encoded before the clock runs, go over gRPC from a sender on another core to

- `kat process`, its write-ahead log on disk;
- the collector with groupbytrace + tail_sampling, which also puts traces together and decides
  which of them leave (by latency; neither compares ranks);
- the same collector that only passes spans on, as the floor of any way through it;
- a loop over protobuf objects in Python that reads every span and attribute, and no more.

Both servers are pinned to the first core (GOMAXPROCS=1) and send to the same sink, which takes
everything at once. Until the collector's queue and its waits are empty, its time goes on; only
CPU time is compared, as waiting is no work. The collector acknowledges from memory: what it held
is lost when it dies. Its isolationforest processor is no part of this: the module could not be
downloaded to build it. Needs `make collector`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parent))
from whole_way import Load, Pinned, Served, Sink, free_port, make_load, send, wait_for, walk

CACHE = Path(
    os.environ.get("KAT_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kat-otel"
)
SAMPLING_WAIT_S = 5.0


@dataclass(frozen=True)
class Measured:
    """One peer's run."""

    name: str
    spans_per_cpu_s: float
    wall_s: float
    peak_mib: float
    out_bytes: int
    refused: int

    def __str__(self) -> str:
        return (
            f"{self.name:<38} {self.spans_per_cpu_s:>11,.0f} spans/CPU-s "
            f"{self.wall_s:>7.1f} s wall "
            f"{self.peak_mib:>7.0f} MiB {self.out_bytes / 2**20:>8.1f} MiB out "
            f"{self.refused:>5} refused"
        )


class Collector(Pinned):
    """A collector of its own, pinned to the first core."""

    def __init__(self, folder: Path, sink: int, processors: dict) -> None:
        self.port, self.health = free_port(), free_port()
        config = {
            "receivers": {
                "otlp": {
                    "protocols": {
                        "grpc": {"endpoint": f"127.0.0.1:{self.port}", "max_recv_msg_size_mib": 64}
                    }
                }
            },
            "processors": processors,
            "exporters": {
                "otlp_grpc": {
                    "endpoint": f"127.0.0.1:{sink}",
                    "tls": {"insecure": True},
                    "compression": "none",
                    "sending_queue": {"block_on_overflow": True},
                }
            },
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{self.health}"}},
            "service": {
                "extensions": ["health_check"],
                "pipelines": {
                    "traces": {
                        "receivers": ["otlp"],
                        "processors": list(processors),
                        "exporters": ["otlp_grpc"],
                    }
                },
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "error"}},
            },
        }
        file = folder / "collector.yaml"
        file.write_text(yaml.safe_dump(config))
        binary = CACHE / "bin" / "otelcol-kat"
        if not binary.exists():
            raise SystemExit(f"{binary} is not there: make collector")
        command = [str(binary), "--config", str(file)]
        super().__init__(command, folder / "collector.log", env=os.environ | {"GOMAXPROCS": "1"})
        for _ in range(600):
            if self.process.poll() is not None:
                raise SystemExit((folder / "collector.log").read_text())
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.health}", timeout=1).close()
                return
            time.sleep(0.1)
        raise SystemExit("the collector did not come up")

    def rest(self) -> None:
        """Waits until it does nothing more: its waits are over, its queue is empty."""
        time.sleep(SAMPLING_WAIT_S + 1)
        before = -1.0
        while (now := self.cpu()) - before > 0.05:
            before = now
            time.sleep(1.0)


def through_kat(load: Load, sink: Sink) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        served = Served(Path(folder), sink.port, log=True)
        try:
            send(Load(load.requests[:64], 0, 0, 0, 0), served.port)  # first use compiles
            served.settled()
            warm = served.state()["spans"].get("acknowledged", 0)
            cpu, before, begun = served.cpu(), sink.size, time.perf_counter()
            refused = send(load, served.port)
            wait_for(served, load.spans + warm)
            wall = time.perf_counter() - begun
            cpu = served.cpu() - cpu
            return Measured(
                "kat process, log on disk",
                load.spans / cpu,
                wall,
                served.peak_mib(),
                sink.size - before,
                refused,
            )
        finally:
            served.stop()


def through_collector(name: str, load: Load, sink: Sink, processors: dict) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        collector = Collector(Path(folder), sink.port, processors)
        try:
            cpu, before, begun = collector.cpu(), sink.size, time.perf_counter()
            refused = send(load, collector.port)
            wall = time.perf_counter() - begun
            collector.rest()
            cpu = collector.cpu() - cpu
            peak = collector.peak_mib()
            return Measured(name, load.spans / cpu, wall, peak, sink.size - before, refused)
        finally:
            collector.stop()


def through_objects(load: Load) -> Measured:
    begun = time.process_time()
    for _ in walk(load.requests):
        pass
    took = time.process_time() - begun
    return Measured("a loop over protobuf objects", load.spans / took, took, 0, 0, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--layers", type=int, default=40)
    args = parser.parse_args()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores - {min(cores)} or cores)  # of the sink's threads
    sink = Sink()
    load = make_load(args.ranks, args.spans, args.layers)
    os.sched_setaffinity(0, cores)
    size = sum(map(len, load.requests))
    print(
        f"{load.spans:,} spans in {len(load.requests):,} requests, {size / load.spans:.0f} bytes a "
        f"span; {load.steps:,} steps of {args.ranks} ranks, {load.spans_a_step:,} spans each"
    )
    group = {"wait_duration": "2s", "num_traces": 100_000}
    sampling = {
        "decision_wait": f"{SAMPLING_WAIT_S:.0f}s",
        "num_traces": 100_000,
        "policies": [{"name": "slow", "type": "latency", "latency": {"threshold_ms": 1_000}}],
    }
    runs = [
        through_kat(load, sink),
        through_collector(
            "collector, groupbytrace + tail_sampling",
            load,
            sink,
            {"groupbytrace": group, "tail_sampling": sampling},
        ),
        through_collector("collector, passing on", load, sink, {}),
        through_objects(make_load(args.ranks, min(args.spans, 100_000), args.layers)),
    ]
    ours = runs[0].spans_per_cpu_s
    for run in runs[1:]:
        print(f"{ours / run.spans_per_cpu_s:>6.2f}x the spans a CPU second of: {run.name}")
    for run in runs:
        print(run)
    print("not measured: isolationforest, whose module could not be downloaded")


if __name__ == "__main__":
    main()
