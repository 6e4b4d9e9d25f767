"""Judging digests: rank-steps a second on one core, against a Python loop over the digests.

Every group is a simulated tensor-parallel decode with noise fitted to real traces; its digests are
made once. Measured: ``judge`` (arrays to flags), ``bytes`` (from the digests' bytes), ``detector``
(DigestDetector on ``--together`` steps at once, with reports: ten are what an instance of 40 steps
a second brings in the ``judge_interval`` of 0.25 s, 60 are a backlog), ``whole way`` (what `kat
process` does with OTLP requests, in this process and without a network or a log: decode, assemble,
judge, reduce; a request has ``--together`` steps of one rank, and a digest is the rank's only
span), and ``loop`` (decode each digest,
the same lateness and class medians in plain Python). Pinned to one core, CPU time of the process,
the best of several rounds, ratios first. Also the size of a digest, and what it costs to make one.

With ``--served`` a real `kat process` on the first core takes them by gRPC, its log on disk:
requests of so many worker steps, ``--together`` of a rank at a time, as a collector joins them.

Run: python bench/digests.py [--layers 20] [--rounds 5] [--together 10] [--ranks 2,8,64,512]
     python bench/digests.py --served [--ranks 8,64] [--sizes 10,80,640] [--spans 60000]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from whole_way import Load, Served, Sink, send, wait_for

from kat_otel import semconv
from kat_otel.config import Config
from kat_otel.digest import Digest, decode, digest_of, encode, with_digests
from kat_otel.identity import trace_ids
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.recording import Group, record
from kat_otel.otlp import encode_traces
from kat_otel.processor.exporter import Payload
from kat_otel.processor.heap import keep_heap, leave_alone
from kat_otel.processor.ingest import Ingest
from kat_otel.processor.intake import Intake
from kat_otel.processor.judges import Judges
from kat_otel.processor.ledger import Ledger
from kat_otel.processor.merge import merge_resources
from kat_otel.processor.pipeline import Pipeline
from kat_otel.processor.replay import stamp
from kat_otel.spans import SpanTable, concat
from kat_otel.telemetry import Telemetry
from kat_otel.ttad import Detector
from kat_otel.ttad.digest_batch import DigestBatch, read_batch
from kat_otel.ttad.digest_history import DigestHistory
from kat_otel.ttad.digests import DigestDetector, judge_many
from kat_otel.ttad.settings import Settings

STEPS = {2: 120, 8: 60, 64: 20, 512: 10}
"""Steps of each number of ranks, at least."""


def digests_of(steps: list[SpanTable]) -> list[list[bytes]]:
    """The bytes of all ranks of each step."""
    return [
        [bytes(step.attributes[row][semconv.DIGEST]) for row in range(len(step))] for step in steps
    ]


def in_python(step: list[bytes]) -> tuple[list[float], list[list[float]]]:
    """One step as a loop over its digests would judge it: each rank's lateness, and its excess."""
    digests: list[Digest] = [decode(data) for data in step]
    late = [0.0] * len(digests)
    released = [0] * len(digests)
    for c in range(len(digests[0].ends)):
        spent = [int(d.spent[c]) for d in digests]
        ends = [int(d.ends[c]) for d in digests]
        own = [ends[r] - spent[r] - released[r] for r in range(len(digests))]
        middle, least = statistics.median(own), min(spent)
        waited = statistics.median(spent) - least
        for r, stretch in enumerate(own):
            if spent[r] - least <= 0.25 * waited:
                late[r] += min(max(stretch - middle, 0), waited)
        released = ends
    excess: list[list[float]] = []
    for k in range(len(digests[0].classes)):
        time_of = [int(d.time[k].sum()) for d in digests]
        middle = statistics.median(time_of)
        excess.append([mine - middle for mine in time_of])
    return late, excess


def best(run: Callable[[], object], rounds: int) -> float:
    """CPU seconds of the fastest round."""
    taken: list[float] = []
    for _ in range(rounds):
        begin = time.process_time()
        run()
        taken.append(time.process_time() - begin)
    return min(taken)


class WholeWay:
    """What `kat process` does with requests, without its ports and its log."""

    def __init__(self) -> None:
        config = Config.model_validate({"metrics": {"interval": 0}})
        telemetry = Telemetry()
        self.books, self.ledger = telemetry.books, Ledger()
        self.intake = Intake(2**30)
        self.ingest = Ingest(config.receiver, self.intake, self.books, telemetry=telemetry)
        judges = Judges(lambda: Detector(Settings.of(config.detector)), self.books)
        self.pipeline = Pipeline(
            config, judges, self, self.books, ledger=self.ledger, telemetry=telemetry
        )

    def offer(self, payload: Payload) -> bool:
        """Takes what leaves, at once: what is measured is not the backend."""
        self.ledger.release(payload.receipts)
        return True

    def take(self, requests: list[bytes]) -> None:
        """Takes requests, and judges what still waits for others."""
        for data in requests:
            self.ingest.submit("traces", data, "bench")
            batch = self.intake.take(0)
            assert batch is not None
            self.pipeline.take(batch)
            self.intake.done(batch)
        self.pipeline.advance(time.monotonic() + 0.25)


def requests_of(steps: list[SpanTable], round_: int, together: int) -> list[bytes]:
    """The steps as workers send them, so many of a rank at a time; later in later rounds."""
    ranks = len(steps[0])
    later = int(steps[-1].end_ns.max() - steps[0].start_ns.min()) * round_
    numbered = list(enumerate(steps, round_ * len(steps)))
    requests: list[bytes] = []
    for first in range(0, len(steps), together):
        some = [
            _as_sent(step, number, later, ranks)
            for number, step in numbered[first : first + together]
        ]
        for rank in range(ranks):
            batch = concat([step.take(step.rank == rank) for step in some])
            requests += encode_traces(merge_resources(batch))
    return requests


def _as_sent(step: SpanTable, number: int, later: int, ranks: int) -> SpanTable:
    high, low = trace_ids(1, np.full(len(step), number))
    said = {semconv.SPAN_COUNT: 1, semconv.GROUP_SIZE: ranks}
    sent = step.with_columns(
        step=np.full(len(step), number),
        start_ns=step.start_ns + later,
        trace_hi=high,
        trace_lo=low,
    )
    return replace(sent, attributes={row: {**v, **said} for row, v in step.attributes.items()})


def measure(ranks: int, layers: int, rounds: int, together: int) -> str:
    """One line of the table."""
    number_of_steps = together * -(-STEPS[ranks] // together)
    program = decode_program(
        replace(LLAMA_70B, layers=layers), workers(ranks, instance=f"bench {ranks}")
    )
    group = Group(program, 1)
    steps = [with_digests(record(group, [number])) for number in range(number_of_steps)]
    data = digests_of(steps)
    flat, shape = [one for step in data for one in step], (len(data), ranks)
    batch: DigestBatch = read_batch(flat, shape)
    history = DigestHistory(Settings(), batch)
    while not history.ready:
        judge_many(batch, history)
    detector = DigestDetector()
    parts = [  # as the processor hands them over: a worker's resource is said once
        merge_resources(concat(steps[at : at + together])) for at in range(0, len(steps), together)
    ]
    bounds = range(0, together * ranks + 1, ranks)
    for part in parts * 2:
        detector.judge_steps(part, bounds)
    count = len(flat)
    few = data[: max(1, 128 // ranks)]
    judge = count / best(lambda: judge_many(batch, history), rounds)
    whole = count / best(lambda: judge_many(read_batch(flat, shape), history), rounds)
    online = count / best(lambda: [detector.judge_steps(part, bounds) for part in parts], rounds)
    loop = len(few) * ranks / best(lambda: [in_python(step) for step in few], 2)
    stamped = [stamp(step, f"bench {ranks}", 1, None) for step in steps]
    way, sent = WholeWay(), iter([requests_of(stamped, n, together) for n in range(rounds + 1)])
    way.take(next(sent))
    through = count / best(lambda: way.take(next(sent)), rounds)
    assert way.books.marked("steps complete") == (rounds + 1) * len(steps)
    assert len(way.ledger) == 0
    size = np.mean([len(one) for one in flat])
    return (
        f"{ranks:5d} {whole / loop:8.0f}x {online / loop:10.0f}x {through / loop:9.1f}x "
        f"{judge:12,.0f} {whole:10,.0f} {online:10,.0f} {through:10,.0f} {loop:9,.0f} {size:7.0f} B"
    )


def served(ranks: int, layers: int, together: int, size: int, spans: int) -> str:
    """One line: what a process does with requests of so many worker steps."""
    program = decode_program(
        replace(LLAMA_70B, layers=layers), workers(ranks, instance=f"bench {ranks}")
    )
    group = Group(program, 1)
    steps = [with_digests(record(group, [number])) for number in range(2 * together)]
    steps = [stamp(step, f"bench {ranks}", 1, None) for step in steps]
    rounds = -(-spans // (len(steps) * ranks))
    parts = [part for n in range(rounds) for part in requests_of(steps, n, together)]
    joined = max(1, size // together)
    # Requests put end to end are a request, as protobuf joins repeated fields.
    requests = [b"".join(parts[at : at + joined]) for at in range(0, len(parts), joined)]
    count = rounds * len(steps) * ranks
    cold = len(requests) // 4
    load = Load(requests, count, rounds * len(steps), ranks, len(requests))
    sink = Sink()
    with tempfile.TemporaryDirectory() as folder:
        process = Served(Path(folder), sink.port, log=True)
        try:
            send(replace(load, requests=requests[:cold]), process.port)
            process.settled()
            begun, cpu = time.perf_counter(), process.cpu()
            first = process.state()["spans"]["acknowledged"]
            send(replace(load, requests=requests[cold:]), process.port)
            wait_for(process, count)
            took, cpu = time.perf_counter() - begun, process.cpu() - cpu
            peak = process.peak()
        finally:
            process.stop()
    warm = count - first
    return (
        f"{ranks:5d} {joined * together:14,d} {len(requests[0]):12,d} B {warm / took:12,.0f} "
        f"{warm / cpu:12,.0f}  {peak}"
    )


def making(layers: int, rounds: int) -> str:
    """What a worker pays for the digest of a step."""
    program = decode_program(replace(LLAMA_70B, layers=layers), workers(8))
    table = record(Group(program, 1), [0])
    mine = table.take(table.rank == 3)
    digest = digest_of(mine)
    made = best(lambda: digest_of(mine), 20 * rounds)
    packed = best(lambda: encode(digest), 20 * rounds)
    return (
        f"making one: {digest.kernels} kernels, {len(digest.ends)} collectives: digest_of "
        f"{1e6 * made:.0f} µs, encode {1e6 * packed:.0f} µs, {len(encode(digest))} B"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--together", type=int, default=10, help="steps judged at once")
    parser.add_argument("--ranks", default=",".join(map(str, STEPS)))
    parser.add_argument("--served", action="store_true", help="by a process, through its ports")
    parser.add_argument(
        "--sizes", default="10,80,640", help="worker steps a request, with --served"
    )
    parser.add_argument("--spans", type=int, default=60_000, help="with --served")
    options = parser.parse_args()
    if options.served:
        print("ranks  steps/request      request     a second  a CPU second  peak memory")
        for ranks in map(int, options.ranks.split(",")):
            for size in map(int, options.sizes.split(",")):
                line = served(ranks, options.layers, options.together, size, options.spans)
                print(line, flush=True)
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    keep_heap()  # as `kat process` does
    leave_alone()
    print(f"rank-steps a second, one core, {2 * options.layers + 2} collectives a step")
    print(
        "ranks bytes/loop  detector/  whole way/        judge      bytes   detector  whole way"
        "      loop    size"
    )
    for ranks in map(int, options.ranks.split(",")):
        line = measure(ranks, options.layers, options.rounds, options.together)
        print(line, flush=True)
    for layers in (options.layers, 80):
        print(making(layers, options.rounds))


if __name__ == "__main__":
    main()
