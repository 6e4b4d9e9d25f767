"""What a healthy step costs from its decoded batches to its verdict, stage by stage, on one core.

    python bench/ttad.py [--ranks 2,8,64,512] [--spans 500,1500] [--steps 12] [--group 0]
    python bench/ttad.py --window     512 ranks x 20,000 kernels in one window
    python bench/ttad.py --pending    five million spans waiting in the assembler

A tensor-parallel decode (worker step > host operation > launch > kernel, collectives among the
kernels) with noise fitted to real traces, one batch a rank and step. CPU time of this process,
median over the steps; the first steps, which fill the history, are not counted. `--group 8` gives
every eight ranks a communicator of their own, else all ranks meet at each collective.
"""

from __future__ import annotations

import argparse
import functools
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
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
from kat_otel.spans import COLUMNS, Resource, SpanKind, SpanTable, SpanTableBuilder
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


def recording(ranks: int, spans: int, kinds: int = 3, group_of: int = 0) -> list[list[SpanTable]]:
    """A few steps of one instance, each as one batch a rank; names interned once."""
    layers = max(1, round(spans / SPANS_A_LAYER))
    program = decode_program(replace(LLAMA_70B, layers=layers), workers(ranks, instance="bench"))
    group = Group(program, seed=1)
    steps: list[list[SpanTable]] = []
    for step in range(kinds):
        noisy, times = group.play(step)
        table = to_table(noisy, times, step=step, zero_unix_ns=ZERO_UNIX_NS, nonce=7)
        if group_of:
            names = [table.strings.add(f"tp{r // group_of}") for r in range(ranks)]
            own = np.array(names)[table.resource]
            table = table.with_columns(group=np.where(table.group > 0, own, 0))
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


def measure(ranks: int, spans: int, steps: int, group_of: int) -> None:
    """Prints the table of one size of step."""
    recorded = recording(ranks, spans, group_of=group_of)
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


def window(ranks: int, kernels: int) -> SpanTable:
    """Kernels of one stream a rank, every tenth an all-reduce, and nothing else."""
    random = np.random.default_rng(0)
    builder = SpanTableBuilder()
    names = [builder.strings.add(f"void gemm_{k}<float>(int)") for k in range(9)]
    names.append(builder.strings.add("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)"))
    which = np.tile(np.arange(10), kernels // 10)
    usual = np.append(random.integers(5_000, 40_000, 9), 9_000)[which]
    start, length = np.zeros((kernels, ranks)), np.zeros((kernels, ranks))
    free = random.exponential(2_000, ranks)
    for at in range(kernels):
        start[at] = free + 1_000
        if which[at] == 9:
            free = np.full(ranks, start[at].max() + 9_000)
        else:
            free = start[at] + usual[at] * np.exp(random.normal(0, 0.01, ranks))
        length[at] = free - start[at]
    for rank in range(ranks):
        builder.add_resource(Resource(rank=rank, world_size=ranks, instance="bench"))
        builder.append(
            kernels,
            span_id=1 + np.arange(kernels) + rank * kernels,
            trace_lo=1,
            start_ns=ZERO_UNIX_NS + start[:, rank].astype(np.int64),
            duration_ns=length[:, rank].astype(np.int64),
            name=np.array(names)[which],
            kind=SpanKind.KERNEL,
            resource=rank,
            step=1,
            stream=7,
        )
    return builder.build()


def windows() -> None:
    """Prints what windows of growing length take, and so the slope."""
    for kernels in (1_000, 5_000, 20_000):
        table = window(512, kernels)
        before, begun = peak_mib(), time.process_time()
        report = Detector().judge(table)
        took = time.process_time() - begun
        assert not report.incidents, report.incidents
        print(
            f"512 ranks x {kernels:,} kernels: {took:.2f} s, {took / len(table) * 1e6:.3f} µs/span;"
            f" spans {table.nbytes / 2**20:,.0f} MiB, peak {before:,.0f} -> {peak_mib():,.0f} MiB"
        )


def pending(total: int) -> None:
    """Prints what a batch costs while ever more spans wait, and the memory that they take."""
    assembler = Assembler(AssemblerConfig(max_pending_steps=100_000, max_pending_mib=100_000))
    (batches,) = recording(8, 1_500, kinds=1)
    before, held, step, mark = resident_mib(), 0, 1, 0
    spent = taken = 0.0
    while held < total:
        for shared in stamped(batches[:7], step):  # the eighth rank never comes
            own = {name: getattr(shared, name).copy() for name in COLUMNS}
            batch = shared.with_columns(**own)
            begun = time.process_time()
            assembler.add(batch, 0.0, step)
            list(assembler.ready(0.0))
            assembler.next_deadline()
            spent += time.process_time() - begun
            held, taken = held + len(batch), taken + len(batch)
        step += 1
        if held >= mark:
            bytes_each = (resident_mib() - before) * 2**20 / held
            print(
                f"{held:>10,} spans wait: {spent / taken * 1e6:.3f} µs a span more, "
                f"{resident_mib():,.0f} MiB resident, {bytes_each:.0f} B a span"
            )
            spent = taken = 0.0
            mark = 1_000_000 if mark == 0 else mark + 1_000_000


def resident_mib() -> float:
    """Memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Prints one table for each size of step."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", default="2,8,64,512")
    parser.add_argument("--spans", default="500,1500")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--group", type=int, default=0)
    parser.add_argument("--window", action="store_true")
    parser.add_argument("--pending", action="store_true")
    options = parser.parse_args()
    if options.window:
        return windows()
    if options.pending:
        return pending(5_000_000)
    for spans in map(int, options.spans.split(",")):
        for ranks in map(int, options.ranks.split(",")):
            measure(ranks, spans, options.steps, options.group)
    print(f"\npeak memory {peak_mib():,.0f} MiB")
    return None


if __name__ == "__main__":
    main()
