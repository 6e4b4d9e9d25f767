"""What instrumentation costs a kernel in all, from CUPTI's callback to the collector's socket.

    python bench/worker.py [--seconds 10] [--rate 100000] [--kernels 1000] [--rounds 3]
                           [--sample-every 100,1] [--profile FILE] [--peers]

A stand-in for CUPTI emits ``--rate`` launches and kernels a second in a worker process, which
marks a step every ``--kernels`` of them; the real helper process takes them, makes steps and
digests, keeps the flight recorder, sends one step of ``--sample-every`` whole, and posts to a sink
that throws everything away. CPU time, not wall time, after a warm-up: in CUPTI's callbacks, of
capture in the worker's process in all, and of the helper process, its metrics of the host included.

``--peers`` measures beside it, each in a process of its own: a span of OpenTelemetry's SDK a
kernel with batching and encoding, torch.profiler (by ``--torch PYTHON``, of CPU activities), and
objects a record. ``--profile`` writes the helper's profile (pstats) of a run of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kat_otel.instrumentation.capture.cupti import Capture
from kat_otel.instrumentation.capture.records import Edge, StepFlag
from kat_otel.instrumentation.identity.worker import Worker
from kat_otel.instrumentation.sending.helping import Helper
from kat_otel.instrumentation.settings import Settings
from kat_otel.spans import Resource
from tests.instrumentation.standin import Standin

GOAL_CALLBACK_NS, GOAL_NS = 100, 1_000
WARM_S = 4.0
PROFILED = (
    "import cProfile, sys; from kat_otel.instrumentation.sending.helper import main; "
    "p = cProfile.Profile(); p.enable(); main(sys.argv[2:]); p.disable(); p.dump_stats(sys.argv[1])"
)


# --- the worker's process ------------------------------------------------------------------


def worker(seconds: float, rate: int, kernels: int, profile: str) -> dict[str, float]:
    """Runs in a process of its own: captures, marks and measures; returns what it saw."""
    standin = Standin()
    settings = Settings.read({**os.environ, "KAT_CUPTI_LIBRARY": standin.path})
    capture = Capture.start(settings)
    rank = Resource(rank=0, world_size=1, instance="bench", device=0, host="bench")
    capture.say(Worker(rank, 0x123456789ABCDEF, 1).encode())
    how = {"command": (sys.executable, "-c", PROFILED, profile)} if profile else {}
    helper = Helper(capture.fd, settings, **how)
    _until_idle(helper)  # a start costs a second, once; it is not what is measured
    period = kernels / rate
    standin.load(int((WARM_S + seconds) * rate), rate)
    begun, marking = time.monotonic(), 0.0
    snapshots: list[dict[str, float]] = []
    capture.mark(1, 0, Edge.BEGIN, StepFlag.DECODE)
    for step in range(1, int((WARM_S + seconds) / period)):
        time.sleep(max(0.0, begun + step * period - time.monotonic()))
        since = time.thread_time_ns()
        capture.mark(step, 0, Edge.END, StepFlag.DECODE)
        capture.mark(step + 1, 0, Edge.BEGIN, StepFlag.DECODE)
        marking += time.thread_time_ns() - since
        if not snapshots and step * period >= WARM_S:
            snapshots.append(_seen(standin, capture, helper, marking))
    capture.mark(step + 1, 0, Edge.END, StepFlag.DECODE)
    standin.wait()
    loss, first = capture.loss(), snapshots[0]
    last = _seen(standin, capture, helper, marking)
    before = _children_s()
    capture.stop()
    helper.close(10.0)  # drained: what it had not done by then is counted too
    last["helper"] = 1e9 * (_children_s() - before)
    seen = {name: last[name] - first[name] for name in last}
    return seen | {"lost": loss.records + loss.buffers + loss.messages + loss.malformed}


def _cpu_s(helper: Helper) -> float:
    return time.clock_gettime(~helper.pid << 3 | 2)  # the CPU clock of that process


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _until_idle(helper: Helper) -> None:
    before = 0.0
    while not before or _cpu_s(helper) - before > 0.01:
        before = _cpu_s(helper)
        time.sleep(0.5)


def _seen(standin: Standin, capture: Capture, helper: Helper, marking: float) -> dict[str, float]:
    callback, records = standin.callbacks()
    return {
        "kernels": records / 2,
        "callback": callback,
        "worker": capture.busy_ns() + marking,
        "helper": 1e9 * _cpu_s(helper),
    }


# --- the sink ------------------------------------------------------------------------------


@dataclass
class Received:
    """What has come, of which nothing is kept but the last metrics."""

    requests: int = 0
    bytes: int = 0
    metrics: bytes = b""
    endpoint: str = field(default="")


@contextmanager
def sink() -> Iterator[Received]:
    """An OTLP/HTTP endpoint that takes everything and throws it away."""
    received = Received()

    class Sink(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        room = memoryview(bytearray(1 << 20))

        def do_POST(self) -> None:
            left = int(self.headers["content-length"])
            received.requests += 1
            received.bytes += left
            if self.path.endswith("metrics"):
                received.metrics, left = self.rfile.read(left), 0
            while left:
                left -= self.rfile.readinto(self.room[: min(left, len(self.room))])
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    received.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()


def said(metrics: bytes) -> dict[str, float]:
    """Returns the helper's own counts from its last metrics request."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415
        ExportMetricsServiceRequest,
    )

    counts: dict[str, float] = {}
    for group in ExportMetricsServiceRequest.FromString(metrics).resource_metrics:
        for metric in group.scope_metrics[0].metrics:
            points = (metric.sum if metric.HasField("sum") else metric.gauge).data_points
            if metric.name.startswith("kat.capture."):
                short = metric.name.removeprefix("kat.capture.")
                counts[short] = sum(p.as_int or p.as_double for p in points)
    return counts


# --- the whole way -------------------------------------------------------------------------


def measure(given: argparse.Namespace, every: int, profile: str = "") -> dict[str, Any]:
    """Runs one worker; returns ns a kernel of each part, and what was sent and lost."""
    with sink() as received:
        command = [sys.executable, __file__, "--worker", "--seconds", str(given.seconds)]
        command += ["--rate", str(given.rate), "--kernels", str(given.kernels)]
        command += ["--profile", profile] if profile else []
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint,
            "KAT_SAMPLE_EVERY": str(every),
            "KAT_OVERHEAD_BUDGET": "0",  # else this load would make it record less
        }
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    seen = json.loads(run.stdout)
    cost = {name: seen[name] / seen["kernels"] for name in ("callback", "worker", "helper")}
    return {
        **cost,
        "all": cost["worker"] + max(0.0, cost["callback"] - cost["worker"]) + cost["helper"],
        "lost": seen["lost"],
        "mib": received.bytes / 2**20,
        "told": said(received.metrics),
    }


def spread(values: list[float]) -> str:
    return f"{min(values):8.0f}   {min(values):.0f} to {max(values):.0f}"


def whole_way(given: argparse.Namespace, every: int) -> float:
    """Prints the parts; returns the best sum, ns a kernel."""
    runs = [measure(given, every) for _ in range(given.rounds)]
    print(f"one step of {every} whole: CPU time, ns a kernel, best of {len(runs)} and spread")
    for name, what in (
        ("callback", "in CUPTI's callbacks"),
        ("worker", "capture in the worker in all"),
        ("helper", "helper process in all"),
        ("all", "in all"),
    ):
        values = [run[name] for run in runs]
        goal = {"callback": GOAL_CALLBACK_NS, "all": GOAL_NS}.get(name)
        met = f"   goal {goal}: {'met' if min(values) <= goal else 'MISSED'}" if goal else ""
        print(f"  {what:30}{spread(values)}{met}")
    told = runs[-1]["told"]
    counts = ", ".join(f"{name} {value:g}" for name, value in sorted(told.items()))
    print(f"  lost {sum(run['lost'] for run in runs):g}; {runs[-1]['mib']:.1f} MiB sent; {counts}")
    return min(run["all"] for run in runs)


# --- beside it -----------------------------------------------------------------------------

TORCH = """
import json, time, torch
from torch.profiler import ProfilerActivity, profile
a, count = torch.ones(1), 20_000
def work():
    for _ in range(count): torch.add(a, a, out=a)
def cpu(what):
    since = time.process_time(); what(); return time.process_time() - since
torch.set_num_threads(1); work()
best = None
for _ in range(3):
    plain = cpu(work)
    p = profile(activities=[ProfilerActivity.CPU])
    started = cpu(p.start); worked = cpu(work); stopped = cpu(p.stop)
    since = time.process_time(); events = len(p.events()); read = time.process_time() - since
    one = [1e9 * t / events for t in (started + worked - plain, stopped, read)]
    if best is None or sum(one) < sum(best): best = one
print(json.dumps([torch.__version__, events, *best]))
"""


class Nowhere:
    """Encodes what the SDK hands over, and throws it away: sending would come on top."""

    def export(self, spans: Any) -> Any:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import (  # noqa: PLC0415
            encode_spans,
        )
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415

        encode_spans(spans).SerializeToString()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, _: int = 0) -> bool:
        return True


def by_sdk(count: int = 20_000) -> float:
    """Ns of a span of the SDK with five attributes, batched and encoded."""
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider()
    nowhere: Any = Nowhere()
    provider.add_span_processor(BatchSpanProcessor(nowhere, max_queue_size=2 * count))
    tracer = provider.get_tracer("bench")
    began = time.process_time()
    for i in range(count):
        attributes = {"stream": 7, "correlation": i, "grid": "128,1,1", "block": "256,1,1", "d": 0}
        tracer.start_span("gemm", start_time=1_000 + i, attributes=attributes).end(2_000 + i)
    provider.force_flush()
    each = 1e9 * (time.process_time() - began) / count
    provider.shutdown()
    return each


def peers(torch: str, ours: float) -> None:
    """Prints what others' ways cost; the best of three."""
    from capture import objects  # noqa: PLC0415 - beside this file

    def line(what: str, ns: float) -> None:
        print(f"  {what:58}{ns:8.0f}   {ns / ours:5.1f}x")

    print(f"others' ways, CPU time, ns a kernel, beside {ours:.0f} in all")
    try:
        line("a span of the SDK, batched and encoded, not sent", min(by_sdk() for _ in range(3)))
    except ImportError:
        print("  SDK: pip install opentelemetry-exporter-otlp-proto-common")
    line("an object for the kernel's and the launch's record, no more", objects())
    if not torch:
        print("  torch.profiler: not measured; --torch PYTHON of an environment that has it")
        return
    run = subprocess.run([torch, "-c", TORCH], stdout=subprocess.PIPE, check=True)
    version, events, *parts = json.loads(run.stdout)
    line(f"torch.profiler {version}: start and record, an event", parts[0])
    line("  stop", parts[1])
    line(f"  events(): {events:,} objects", parts[2])
    line("  in all, of CPU activities", sum(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=int, default=100_000)
    parser.add_argument("--kernels", type=int, default=1_000, help="a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample-every", default="100,1")
    parser.add_argument("--profile", default="", help="a file for the helper's profile")
    parser.add_argument("--peers", action="store_true", help="measure others' ways too")
    parser.add_argument("--torch", default="", help="a Python that has torch")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(worker(given.seconds, given.rate, given.kernels, given.profile)))
        return
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(
        f"{given.rate:,} kernels/s with their launches, {given.kernels:,} a step, "
        f"{given.seconds:g} s a run, {os.cpu_count()} cores, load {load}"
    )
    if given.profile:
        for every in given.sample_every.split(","):
            measure(given, int(every), f"{given.profile}.{every}")
        return
    best = [whole_way(given, int(every)) for every in given.sample_every.split(",")]
    if given.peers:
        peers(given.torch, best[0])


if __name__ == "__main__":
    main()
