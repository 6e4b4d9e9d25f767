"""Judging digests: rank-steps a second on one core, against a Python loop over the digests.

Every group is a simulated tensor-parallel decode with noise fitted to real traces; its digests are
made once. Measured: ``judge`` (arrays to flags), ``bytes`` (from the digests' bytes), ``detector``
(DigestDetector on tables, one step after the other, as ``kat process`` calls it), and ``loop``
(decode each digest, the same lateness and class medians in plain Python). Pinned to one core; the
best of several rounds, ratios first. Also the size of a digest, and what it costs to make one.

Run: python bench/digests.py [--layers 20] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from kat_otel import semconv
from kat_otel.digest import Digest, decode, digest_of, encode, with_digests
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.recording import Group, record
from kat_otel.spans import SpanTable
from kat_otel.ttad.digest_batch import DigestBatch, read_batch
from kat_otel.ttad.digest_history import DigestHistory
from kat_otel.ttad.digests import DigestDetector, judge_many
from kat_otel.ttad.settings import Settings

STEPS = {2: 128, 8: 64, 64: 16, 512: 3}


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
    """Seconds of the fastest round."""
    taken: list[float] = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def measure(ranks: int, layers: int, rounds: int) -> str:
    """One line of the table."""
    program = decode_program(
        replace(LLAMA_70B, layers=layers), workers(ranks, instance=f"bench {ranks}")
    )
    group = Group(program, 1)
    steps = [with_digests(record(group, [number])) for number in range(STEPS[ranks])]
    data = digests_of(steps)
    flat, shape = [one for step in data for one in step], (len(data), ranks)
    batch: DigestBatch = read_batch(flat, shape)
    history = DigestHistory(Settings(), batch)
    while not history.ready:
        judge_many(batch, history)
    detector = DigestDetector()
    for step in steps * (1 + 8 // len(steps)):
        detector.judge(step)
    count = len(flat)
    few = data[: max(1, 128 // ranks)]
    judge = count / best(lambda: judge_many(batch, history), rounds)
    whole = count / best(lambda: judge_many(read_batch(flat, shape), history), rounds)
    online = count / best(lambda: [detector.judge(step) for step in steps], rounds)
    loop = len(few) * ranks / best(lambda: [in_python(step) for step in few], 2)
    size = np.mean([len(one) for one in flat])
    return (
        f"{ranks:5d} {whole / loop:8.0f}x {judge / loop:8.0f}x {judge:12,.0f} {whole:12,.0f} "
        f"{online:12,.0f} {loop:9,.0f} {size:7.0f} B"
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
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"rank-steps a second, one core, {2 * options.layers + 2} collectives a step")
    print("ranks  bytes/loop judge/loop       judge        bytes     detector      loop    size")
    for ranks in STEPS:
        print(measure(ranks, options.layers, options.rounds), flush=True)
    for layers in (options.layers, 80):
        print(making(layers, options.rounds))


if __name__ == "__main__":
    main()
