"""What a healthy step costs from its decoded batches to its verdict, stage by stage, on one core.

    python bench/ttad.py [--ranks 2,8,64,512] [--spans 500,1500] [--steps 12] [--limits]

A tensor-parallel decode (worker step > host operation > launch > kernel, collectives among the
kernels) with noise fitted to real traces, one batch a rank and step. CPU time of this process,
median over the steps; the first steps, which fill the history, are not counted. `--limits` adds
512 ranks x 20,000 kernels in one window, and a million spans waiting in the assembler.
"""

from __future__ import annotations

import argparse
import functools
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from kat_otel.config import AssemblerConfig
from kat_otel.kernels import classify
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.recording import ZERO_UNIX_NS, Group
from kat_otel.lmdia.table import to_table
from kat_otel.processor.assembler import Assembler
from kat_otel.processor.mark import Root, mark_incidents, with_root
from kat_otel.processor.measure import arrival_lateness
from kat_otel.processor.reduce import summary_spans
from kat_otel.spans import SpanKind, SpanTable
from kat_otel.ttad import Detector, detector

STAGES = ("add", "close", "classify", "judge", "measure", "reduce")
INSIDE = (
    "align",
    "features",
    "clock_offsets",
    "meetings",
    "anchors",
    "lateness",
    "durations",
    "suspects",
    "group_changes",
    "slow_stages",
)
SPANS_A_LAYER = 27.5
WARM_UP = 10


class Clock:
    """CPU seconds by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(list)

    def time(self, stage: str, function: Callable[..., Any], *inputs: Any, **more: Any) -> Any:
        """Calls the function and notes what it took."""
        begun = time.process_time_ns()
        result = function(*inputs, **more)
        self.spent[stage].append((time.process_time_ns() - begun) / 1e9)
        return result

    def watch(self, module: Any, names: tuple[str, ...]) -> None:
        """Times functions wherever the module calls them."""
        for name in names:
            function = getattr(module, name)
            setattr(module, name, functools.partial(self.time, name, function))

    def median(self, stage: str) -> float:
        """Seconds a step."""
        return float(np.median(self.spent[stage])) if self.spent[stage] else 0.0


def recording(ranks: int, spans: int, kinds: int = 3) -> list[list[SpanTable]]:
    """A few steps of one instance, each as one batch a rank; names interned once."""
    layers = max(1, round(spans / SPANS_A_LAYER))
    program = decode_program(replace(LLAMA_70B, layers=layers), workers(ranks, instance="bench"))
    group = Group(program, seed=1)
    steps: list[list[SpanTable]] = []
    for step in range(kinds):
        noisy, times = group.play(step)
        table = to_table(noisy, times, step=step, zero_unix_ns=ZERO_UNIX_NS, nonce=7)
        steps.append([_of_rank(table, rank) for rank in range(ranks)])
    return steps


def _of_rank(table: SpanTable, rank: int) -> SpanTable:
    mine = table.take(table.resource == rank)
    alone = replace(mine, resources=(table.resources[rank],))
    return alone.with_columns(resource=np.zeros(len(mine)))


def stamped(batches: list[SpanTable], step: int) -> list[SpanTable]:
    """The same batches as another step."""
    return [
        batch.with_columns(
            step=np.full(len(batch), step), trace_lo=batch.trace_lo + np.uint64(step)
        )
        for batch in batches
    ]


def one_step(
    clock: Clock, assembler: Assembler, judge: Detector, batches: list[SpanTable], step: int
) -> int:
    """The way of one step, as processor/pipeline.py goes it; returns its spans."""
    begun = time.process_time_ns()
    for batch in batches:
        assembler.add(batch, float(step), step)
    clock.spent["add"].append((time.process_time_ns() - begun) / 1e9)
    (done,) = clock.time("close", assembler.ready, float(step) + 0.6)
    table = clock.time("classify", lambda: classify(done.table)[0])
    report = clock.time("judge", judge.judge, table)
    assert not report.incidents, report.incidents
    assert report.abstained is None
    clock.time("measure", arrival_lateness, table)
    clock.time("reduce", reduced, table, step)
    return len(table)


def reduced(table: SpanTable, step: int) -> SpanTable:
    """What leaves of a healthy step."""
    bounds = int(table.start_ns.min()), int(table.end_ns.max())
    kept = summary_spans(table) & (table.kind != SpanKind.STEP)
    marked = mark_incidents(table, []).take(kept)
    root = Root("bench", step, len(table) - int(np.count_nonzero(kept)), ())
    return with_root(marked, bounds, root, [])


def measure(ranks: int, spans: int, steps: int) -> None:
    """Prints the table of one size of step."""
    recorded = recording(ranks, spans)
    clock = Clock()
    assembler = Assembler(AssemblerConfig())
    judge = Detector()
    clock.watch(detector, INSIDE)
    count = 0
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            clock.spent.clear()
        count = one_step(clock, assembler, judge, stamped(recorded[step % 3], step), step)
    for name in INSIDE:
        setattr(detector, name, getattr(detector, name).args[1])
    whole = sum(clock.median(stage) for stage in STAGES)
    print(f"\n{ranks} ranks, {count:,} spans a step ({count // ranks:,} a rank)")
    for stage in (*STAGES, *INSIDE):
        seconds = clock.median(stage)
        indent = "    " if stage in INSIDE else ""
        print(f"  {indent + stage:22} {seconds * 1e3:9.3f} ms {seconds / count * 1e6:8.3f} µs/span")
    print(f"  {'all':22} {whole * 1e3:9.3f} ms {whole / count * 1e6:8.3f} µs/span")


def peak_mib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints one table for each size of step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", default="2,8,64,512")
    parser.add_argument("--spans", default="500,1500")
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    for spans in map(int, options.spans.split(",")):
        for ranks in map(int, options.ranks.split(",")):
            measure(ranks, spans, options.steps)
    print(f"\npeak memory {peak_mib():,.0f} MiB")


if __name__ == "__main__":
    main()
