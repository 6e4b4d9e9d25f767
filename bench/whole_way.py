"""The whole way of `kat process` on one core: receive, log, decode, assemble, judge, forward.

    python bench/whole_way.py [--spans N] [--ranks 2,8,64,512] [--layers 40] [--no-log]
    python bench/whole_way.py --pending 5000000
    python bench/whole_way.py --rate 400000 [--seconds 15]

A real `kat process` is pinned to the first core; sender and sink share the others. Steps are
those of the simulator behind `kat demo`, encoded before the clock runs; the first of them (a third,
until there is a history) warm it up and are told apart. Prints, for each number of ranks, spans a
second (wall and by CPU time), peak memory (its own, and with the log's pages that are mapped) and
what became of every span; then the same payload through a loop over protobuf objects, which is
how a collector's Python processor would begin. ``--rate`` sends steps as they come about, so many
spans a second, and prints how long after a step's last span its verdict came.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from kat_otel.identity import trace_ids
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.recording import Group, record
from kat_otel.otlp import encode_traces
from kat_otel.processor.replay import stamp
from kat_otel.spans import SpanTable, concat

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
RECORDED = 4
"""Steps that are simulated; the others are the same later, with ids of their own."""
REQUEST_SPANS = 5_000
NO_LIMIT = ("grpc.max_receive_message_length", -1)
NO_SEND_LIMIT = ("grpc.max_send_message_length", -1)


@dataclass(frozen=True)
class Load:
    """What is sent: requests in the order of time, and how many spans they hold."""

    requests: list[bytes]
    spans: int
    steps: int
    spans_a_step: int
    batches: int


def make_load(ranks: int, spans: int, layers: int, *, request: int = REQUEST_SPANS) -> Load:
    """Returns about ``spans`` spans of an instance of ``ranks`` ranks, so many a request."""
    program = decode_program(
        replace(LLAMA_70B, layers=layers), workers(ranks, instance=f"bench-{ranks}", host="h")
    )
    table = stamp(record(Group(program, 1), range(RECORDED)), f"bench-{ranks}", 1, time.time_ns())
    length = int(table.end_ns.max() - table.start_ns.min()) + 100_000
    steps = max(RECORDED, round(spans / (len(table) / RECORDED)))
    of_step = [table.take(table.step == step) for step in range(RECORDED)]
    parts = [[step.take(step.rank == rank) for rank in range(ranks)] for step in of_step]
    together = max(1, request // max(1, len(parts[0][0])))
    requests: list[bytes] = []
    sent = 0
    for first in range(0, steps, together):
        numbers = range(first, min(first + together, steps))
        for rank in range(ranks):
            batch = concat([_later(parts[n % RECORDED][rank], n, length) for n in numbers])
            requests += encode_traces(batch)
            sent += len(batch)
    return Load(requests, sent, steps, len(table) // RECORDED, -(-steps // together))


def _later(table: SpanTable, step: int, length: int) -> SpanTable:
    """Returns a recorded step as step number ``step``."""
    rounds = step // RECORDED
    high, low = trace_ids(1, np.full(len(table), step))
    return table.with_columns(
        step=np.full(len(table), step),
        start_ns=table.start_ns + rounds * length,
        trace_hi=high,
        trace_lo=low,
    )


class Sink(grpc.GenericRpcHandler):
    """Takes everything at once: what is measured is not the backend."""

    def __init__(self) -> None:
        self.requests = self.size = 0
        self.server = grpc.server(
            ThreadPoolExecutor(2),
            handlers=[self],
            options=[("grpc.max_receive_message_length", -1)],
        )
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, handler_call_details):  # noqa: ARG002
        def take(data: bytes, context) -> bytes:  # noqa: ARG001
            self.requests += 1
            self.size += len(data)
            return b""

        return grpc.unary_unary_rpc_method_handler(take)


class Pinned:
    """A process of its own on the first core, and what it costs."""

    def __init__(self, command: list[str], stderr: Path, **more: Any) -> None:
        touch_memory()
        core = str(min(os.sched_getaffinity(0)))
        self.process = subprocess.Popen(
            ["taskset", "-c", core, *command], stderr=stderr.open("w"), **more
        )
        self._own_mib = 0
        self._stopped = threading.Event()
        threading.Thread(target=self._watch_memory, daemon=True).start()

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> str:
        """Returns what is in memory now: its own, and what it looks at of files (the log)."""
        held = self._held_mib()
        return f"{held['RssAnon:']:>6} MiB and {held['RssFile:']:>4} MiB of files"

    def peak(self) -> str:
        """Returns the most memory that was its own, looked at 20 times a second, and of all."""
        return f"{self._own_mib} MiB, with mapped files {self.peak_mib()} MiB"

    def peak_mib(self) -> int:
        """Returns the most memory that it had, pages of files that it looked at included."""
        return self._held_mib()["VmHWM:"]

    def _held_mib(self) -> dict[str, int]:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return {line.split()[0]: int(line.split()[1]) >> 10 for line in lines if "kB" in line}

    def _watch_memory(self) -> None:
        while not self._stopped.wait(0.05):
            with contextlib.suppress(OSError, KeyError):
                self._own_mib = max(self._own_mib, self._held_mib()["RssAnon:"])

    def stop(self) -> None:
        self._stopped.set()
        self.process.terminate()
        self.process.wait(60)


class Served(Pinned):
    """A `kat process` of its own, pinned to the first core."""

    def __init__(self, folder: Path, sink: int, *, log: bool, more: dict | None = None) -> None:
        self.port, self.health = free_port(), free_port()
        settings = {
            "receiver": {"endpoint": f"127.0.0.1:{self.port}"},
            "exporter": {"endpoint": f"127.0.0.1:{sink}"},
            "health": {"endpoint": f"127.0.0.1:{self.health}"},
            "prometheus": {"endpoint": None},
            "debug": {"endpoint": None},
            "wal": {"directory": str(folder / "log") if log else None},
            **(more or {}),
        }
        file = folder / "kat.yaml"
        file.write_text(json.dumps(settings))  # JSON is YAML
        command = [sys.executable, "-m", "kat_otel", "process", "--config", str(file)]
        super().__init__(command, folder / "stderr.txt")
        for _ in range(600):
            if self.process.poll() is not None:
                raise SystemExit((folder / "stderr.txt").read_text())
            with contextlib.suppress(OSError):
                self.state()
                return
            time.sleep(0.1)
        raise SystemExit("kat process did not come up")

    def state(self) -> dict:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.health}/healthz", timeout=10
        ) as answer:
            return json.load(answer)

    def settled(self) -> int:
        """Returns the spans pending once their number and the process's CPU time stand still."""
        last = (-1, -1.0)
        while (now := (self.state()["pending"], round(self.cpu(), 1))) != last:
            last = now
            time.sleep(0.5)
        return now[0]


def touch_memory(size: int = 3 << 30) -> None:
    """Makes a virtual machine have its memory before the clock runs.

    The host gives pages when they are first touched, which took twenty times as long here as
    touching them again, and would be counted as the processor's time.
    """
    np.ones(size, np.uint8)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def send(load: Load, port: int, *, in_flight: int = 4) -> int:
    """Sends all requests, again where told to wait; returns how many answers were refusals."""
    refused = 0
    with grpc.insecure_channel(
        f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1)]
    ) as channel:
        export = channel.unary_unary(EXPORT)
        # A worker's own requests stand in a row; those of different ranks are side by side.
        waiting: list[tuple[bytes, grpc.Future]] = []

        def settle(data: bytes, call: grpc.Future) -> None:
            nonlocal refused
            while True:
                error = call.exception()
                if error is None:
                    return
                if call.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise error
                refused += 1
                time.sleep(0.02)
                call = export.future(data, timeout=120)

        for data in load.requests:
            if len(waiting) >= in_flight:
                settle(*waiting.pop(0))
            waiting.append((data, export.future(data, timeout=120)))
        for item in waiting:
            settle(*item)
    return refused


def wait_for(served: Served, spans: int, pending: int = 0) -> dict:
    """Waits until all spans that were sent, but ``pending``, have their fate; the last state."""
    for _ in range(3_000):
        state = served.state()
        counts = state["spans"]
        if counts.get("acknowledged", 0) >= spans and state["pending"] <= pending:
            return state
        time.sleep(0.05)
    raise SystemExit(f"spans without a fate: {state}")


def measure(ranks: int, args: argparse.Namespace, sink: Sink) -> float:
    """Runs one load, prints its line and returns the CPU time of a warm span in µs."""
    load = make_load(ranks, args.spans, args.layers)
    of_batch = len(load.requests) // load.batches
    cold = max(1, load.batches // 3) * of_batch
    if cold == len(load.requests):  # a step of many ranks: one more batch of them
        load = make_load(ranks, 2 * load.spans, args.layers)
    parts = [replace(load, requests=r) for r in (load.requests[:cold], load.requests[cold:])]
    sizes = [sum(map(len, part.requests)) for part in parts]
    with tempfile.TemporaryDirectory() as folder:
        served = Served(Path(folder), sink.port, log=args.log)
        try:
            before, begun = sink.size, served.cpu()
            refused = send(parts[0], served.port)
            served.settled()
            first = served.state()["spans"]["acknowledged"]
            cold_cost = (served.cpu() - begun) / first * 1e6
            begun, cpu = time.perf_counter(), served.cpu()
            refused += send(parts[1], served.port)
            state = wait_for(served, load.spans)
            took, cpu = time.perf_counter() - begun, served.cpu() - cpu
            peak = served.peak()
        finally:
            served.stop()
    warm = load.spans - first
    print(
        f"{ranks:>5} ranks {load.spans_a_step:>9,} spans/step {warm / took:>10,.0f} spans/s "
        f"wall {warm / cpu:>10,.0f} by CPU {cpu / warm * 1e6:>6.2f} µs/span "
        f"(the first {first:,}: {cold_cost:.2f})  {peak}  bytes in/out "
        f"{sum(sizes) / max(1, sink.size - before):.0f}x  refused {refused}  {_fates(state)}",
        flush=True,
    )
    return cpu / warm * 1e6


def measure_pending(spans: int, args: argparse.Namespace, sink: Sink) -> None:
    """Sends what all ranks but one have to say, in parts, and then the last rank's."""
    ranks, parts = 8, 5
    load = make_load(ranks, spans * ranks // (ranks - 1), args.layers)
    of_rank = len(load.requests) // load.batches
    first = [r for i, r in enumerate(load.requests) if i % of_rank != of_rank - 1]
    last = [r for i, r in enumerate(load.requests) if i % of_rank == of_rank - 1]
    more = {"assembler": {"decision_wait": "10m", "max_pending_spans": 2 * spans}}
    with tempfile.TemporaryDirectory() as folder:
        served = Served(Path(folder), sink.port, log=args.log, more=more)
        try:
            for part in np.array_split(np.arange(len(first)), parts):
                cpu, before = served.cpu(), served.state()["pending"]
                send(replace(load, requests=[first[i] for i in part]), served.port)
                pending = served.settled()
                cost = (served.cpu() - cpu) / max(1, pending - before) * 1e6
                print(f"pending {pending:>10,} {cost:>6.2f} µs/span {served.memory()}")
            cpu = served.cpu()
            send(replace(load, requests=last), served.port)
            state = wait_for(served, load.spans)
            cost = (served.cpu() - cpu) / load.spans * 1e6
            print(f"judged  {load.spans:>10,} {cost:>6.2f} µs/span {served.memory()}")
            print(f"at most {served.peak()}")
            print(_fates(state))
        finally:
            served.stop()


def measure_verdicts(ranks: int, args: argparse.Namespace, sink: Sink) -> None:
    """Sends every step when its turn comes, and prints the time to the verdicts."""
    load = make_load(ranks, args.rate * args.seconds, args.layers, request=1)
    port = free_port()
    more = {"prometheus": {"endpoint": f"127.0.0.1:{port}"}}
    with tempfile.TemporaryDirectory() as folder:
        served = Served(Path(folder), sink.port, log=args.log, more=more)
        try:
            cpu, begun = served.cpu(), time.perf_counter()
            late = 0.0
            of_step = [load.requests[at : at + ranks] for at in range(0, load.steps * ranks, ranks)]
            with ThreadPoolExecutor(64) as pool:
                sending = []
                for number, requests in enumerate(of_step):
                    due = begun + number * load.spans_a_step / args.rate
                    late = max(late, time.perf_counter() - due)
                    time.sleep(max(0.0, due - time.perf_counter()))
                    one = replace(load, requests=requests)
                    sending.append(pool.submit(send, one, served.port, in_flight=ranks))
                refused = sum(future.result() for future in sending)
            state = wait_for(served, load.spans)
            took, cpu = time.perf_counter() - begun, served.cpu() - cpu
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                page = answer.read().decode()
        finally:
            served.stop()
    print(
        f"{ranks:>5} ranks {load.steps:>6,} steps {load.spans / took:>10,.0f} spans/s, core busy "
        f"{100 * cpu / took:.0f} %, verdicts: half within {_within(page, 0.5)} s, 99 % within "
        f"{_within(page, 0.99)} s, all within {_within(page, 1)} s; sender late by at most "
        f"{late:.2f} s, refused {refused}  {_fates(state)}",
        flush=True,
    )


def _within(page: str, share: float) -> str:
    """Returns the bound of the histogram's bucket that so many verdicts are below."""
    name = "kat_processor_verdict_latency_seconds_bucket"
    samples = (s for family in text_string_to_metric_families(page) for s in family.samples)
    counts = {sample.labels["le"]: sample.value for sample in samples if sample.name == name}
    return next(le for le, count in counts.items() if count >= share * counts["+Inf"])


def _fates(state: dict) -> str:
    return " ".join(f"{key} {value:,}" for key, value in sorted(state["spans"].items()))


def walk(requests: list[bytes]) -> Iterator[tuple[str, int]]:
    """The protobuf-object loop: what it costs to look at every span and attribute once."""
    for data in requests:
        request = ExportTraceServiceRequest.FromString(data)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    values = {pair.key: pair.value for pair in span.attributes}
                    yield (
                        span.name,
                        span.end_time_unix_nano - span.start_time_unix_nano + len(values),
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--ranks", default="2,8,64,512")
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--pending", type=int, default=0, help="spans under assembly at once")
    parser.add_argument("--rate", type=int, default=0, help="spans a second, step after step")
    parser.add_argument("--seconds", type=int, default=15, help="how long, with --rate")
    parser.add_argument("--no-log", dest="log", action="store_false")
    args = parser.parse_args()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores - {min(cores)} or cores)
    sink = Sink()
    os.sched_setaffinity(0, cores)
    if args.pending:
        measure_pending(args.pending, args, sink)
        return
    if args.rate:
        for ranks in map(int, args.ranks.split(",")):
            measure_verdicts(ranks, args, sink)
        return
    costs = {ranks: measure(ranks, args, sink) for ranks in map(int, args.ranks.split(","))}
    sample = make_load(8, 50_000, args.layers)
    begun = time.process_time()
    for _ in walk(sample.requests):
        pass
    loop = (time.process_time() - begun) / sample.spans * 1e6
    print(f"cost at most {max(costs.values()) / min(costs.values()):.2f}x the least over the ranks")
    for ranks, cost in costs.items():
        print(
            f"{loop / cost:.1f}x a loop over protobuf objects, which only reads ({loop:.1f} µs a "
            f"span): {ranks} ranks"
        )


if __name__ == "__main__":
    main()
