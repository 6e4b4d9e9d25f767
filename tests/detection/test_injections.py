"""Faults put into semi-synthetic groups are found, named rightly and priced; nobody else is blamed.

The groups are real traces healed or cloned (:mod:`kat_otel.lmdia.semi`) and a synthetic decode,
with noise fitted to real traces. The injector knows nothing of the detector. A whole recording
is one step, as a profiler's trace is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import (
    Injected,
    late_launches,
    slow_collectives,
    slow_copies,
    slow_kernels,
    slow_rank,
)
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.real import groups
from kat_otel.lmdia.recording import Group, record
from kat_otel.spans import SpanTable
from kat_otel.ttad import analyze
from kat_otel.verdict import Report

RANKS_AND_SEEDS = [(0, 11), (3, 12), (7, 13)]
HEALTHY_SEEDS = range(20, 26)
BASELINE_SEED = 99
LATE_NS = 5e6
LONG_ENOUGH_NS = 8_000
"""Kernels to double are this long: eight ticks of the coarsest clock, a change one can see."""
COUNTS_NS = 0.01
"""Share of the step from which the cost named must be the cost of the fault."""


@pytest.fixture(scope="module")
def programs(traces: Path) -> dict[str, Program]:
    """The three groups; the first two are semi-synthetic."""
    return {
        **groups(traces, workers(8)),
        "decode": decode_program(replace(LLAMA_70B, layers=20), workers(8)),
    }


@pytest.fixture(params=["dlrm", "vllm", "decode"])
def program(request: pytest.FixtureRequest, programs: dict[str, Program]) -> Program:
    """One of the groups."""
    return programs[request.param]


@dataclass(frozen=True)
class Case:
    """A fault in a recording, what was said of it, and what it really cost."""

    injected: Injected
    report: Report
    cost_ns: float
    step_ns: float


def play(
    program: Program, injected: Injected, seed: int, baseline: SpanTable | None = None
) -> Case:
    """Records one step with the fault and judges it; the cost is against the same step without."""
    group = Group(program, seed)
    sick, healthy = group.play(0, injected.program)[1], group.play(0)[1]
    table = record(group, [0], program_at=lambda _: injected.program)
    report = analyze(table, baseline=baseline)
    return Case(injected, report, sick.step_ns - healthy.step_ns, sick.step_ns)


def check(case: Case, within: float = 0.3) -> None:
    """One culprit and kind, the injected; its cost as it was; nobody else."""
    fault = case.injected.fault
    told = [
        f"{i.kind} of ranks {i.culprit.ranks}, {i.impact_ns / 1e3:.0f} µs"
        for i in case.report.incidents
    ]
    truth = f"{fault.text}, cost {case.cost_ns / 1e3:.0f} µs; said: {told}"
    assert case.report.abstained is None, truth
    assert case.report.incidents, truth
    for incident in case.report.incidents:
        ranks = tuple(incident.culprit.ranks)
        nobody_in_particular = not fault.ranks and len(ranks) in (0, 8)
        assert ranks == fault.ranks or nobody_in_particular, truth
        assert incident.kind in fault.kinds, truth
        assert incident.component in fault.components, f"{truth} by {incident.component}"
    if case.cost_ns > COUNTS_NS * case.step_ns:
        costs = sum(incident.impact_ns for incident in case.report.incidents)
        assert costs == pytest.approx(case.cost_ns, rel=within), truth


@pytest.mark.parametrize("seed", HEALTHY_SEEDS)
def test_a_healthy_group_has_no_incident(program: Program, seed: int) -> None:
    report = analyze(record(Group(program, seed), [0]))
    assert report.abstained is None
    told = [(i.kind, i.culprit.ranks, i.impact_ns) for i in report.incidents]
    assert told == []


def test_a_healthy_group_stays_silent_over_many_steps(program: Program) -> None:
    report = analyze(record(Group(program, 30), range(12)))
    told = [(i.kind, i.culprit.ranks, i.impact_ns, i.steps) for i in report.incidents]
    assert told == []


@pytest.mark.parametrize(("rank", "seed"), RANKS_AND_SEEDS)
def test_a_rank_whose_compute_is_ten_percent_slower(program: Program, rank: int, seed: int) -> None:
    check(play(program, slow_rank(program, rank, 10), seed))


@pytest.mark.parametrize(("rank", "seed"), RANKS_AND_SEEDS)
def test_three_single_kernels_that_take_twice_as_long(
    program: Program, rank: int, seed: int
) -> None:
    long = np.flatnonzero(program.compute & (program.own[0] >= LONG_ENOUGH_NS))
    chosen = np.random.default_rng(seed).choice(long, 3, replace=False)
    check(play(program, slow_kernels(program, rank, chosen.tolist(), 2.0), seed))


@pytest.mark.parametrize(("rank", "seed"), RANKS_AND_SEEDS)
def test_launches_that_come_five_milliseconds_late(program: Program, rank: int, seed: int) -> None:
    at = int(np.random.default_rng(seed).integers(len(program) // 5, len(program) // 2))
    check(play(program, late_launches(program, rank, LATE_NS, [at]), seed))


@pytest.mark.parametrize("seed", [seed for _, seed in RANKS_AND_SEEDS])
def test_collectives_that_all_take_half_as_long_again(program: Program, seed: int) -> None:
    baseline = record(Group(program, BASELINE_SEED), [0])
    check(play(program, slow_collectives(program, 1.5), seed, baseline))


def test_a_healthy_baseline_of_the_same_work_makes_no_incident(program: Program) -> None:
    baseline = record(Group(program, BASELINE_SEED), [0])
    report = analyze(record(Group(program, 31), [0]), baseline=baseline)
    assert [(i.kind, i.culprit.ranks, i.impact_ns) for i in report.incidents] == []


@pytest.mark.parametrize(("rank", "seed"), RANKS_AND_SEEDS)
def test_copies_that_take_twenty_times_as_long(program: Program, rank: int, seed: int) -> None:
    # one copy of the four in a decode lies behind the last collective, where nobody waits for it
    check(play(program, slow_copies(program, rank, 20.0), seed), within=0.4)
