"""The other methods: each sees what it is made to see, and its threshold is chosen apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kat_otel.lmdia.baselines.judgement import Baseline, Follower, ScoredStep, alarms
from kat_otel.lmdia.baselines.registry import BASELINES
from kat_otel.lmdia.baselines.threshold import choose, outcomes
from kat_otel.lmdia.baselines.view import FEATURES, view
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import slow_rank
from kat_otel.lmdia.label import Label, Truth
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.table import to_table
from kat_otel.spans import SpanTable

pytest.importorskip("sklearn")

PROGRAM = decode_program(replace(LLAMA_70B, layers=6), workers(8, instance="opponents"))
CULPRIT, ONSET, STEPS = 3, 20, 26
SLOW = slow_rank(PROGRAM, CULPRIT, 60.0).program
_EVERY = pytest.mark.parametrize("method", BASELINES.values(), ids=BASELINES.keys())


@pytest.fixture(scope="module")
def steps() -> list[SpanTable]:
    group = Group(PROGRAM, 4)
    played = [group.play(step, SLOW if step >= ONSET else PROGRAM) for step in range(STEPS)]
    return [to_table(p, times, step=at) for at, (p, times) in enumerate(played)]


def _scored(method: Callable[[], Baseline], steps: list[SpanTable]) -> tuple[ScoredStep, ...]:
    follower = Follower(method())
    for table in steps:
        follower.see(table)
    return follower.scored()


@_EVERY
def test_a_gross_fault_scores_above_healthy_steps(
    method: Callable[[], Baseline], steps: list[SpanTable]
) -> None:
    scored = _scored(method, steps)
    healthy = [s.scores[0] for s in scored if s.step < ONSET]
    sick = [s.scores[0] for s in scored if s.step >= ONSET]
    assert max(sick) > max(healthy)


@pytest.mark.parametrize("name", ["Minder", "HTA", "EROICA", "Greyhound"])
def test_methods_that_compare_ranks_name_the_culprit(name: str, steps: list[SpanTable]) -> None:
    last = _scored(BASELINES[name], steps)[-1]
    assert last.ranks[0] == CULPRIT


@_EVERY
def test_the_same_steps_score_the_same(
    method: Callable[[], Baseline], steps: list[SpanTable]
) -> None:
    assert _scored(method, steps[:12]) == _scored(method, steps[:12])


def test_a_view_adds_up(steps: list[SpanTable]) -> None:
    seen = view(steps[0])
    assert seen is not None
    whole = float(steps[0].duration_ns[steps[0].on_gpu].sum())
    assert seen.totals.sum() == pytest.approx(whole)
    kernels = np.exp(seen.machine[:, FEATURES.index("kernels")]).sum()
    collectives = np.exp(seen.machine[:, FEATURES.index("collectives")]).sum()
    assert kernels + collectives == pytest.approx(whole)
    assert view(steps[0].take(~steps[0].on_gpu)) is None


def _step(step: int, score: float, rank: int = CULPRIT, middle: float = 0.0) -> ScoredStep:
    return ScoredStep(step=step, ranks=(rank, 0), scores=(score, 0.1), middle=middle)


def test_runs_above_the_threshold_are_one_alarm_each() -> None:
    scored = [_step(at, 5.0 if at in (3, 4, 6, 9) else 1.0) for at in range(12)]
    found = alarms(scored, 2.0, range(12))
    assert [a.steps for a in found] == [(3, 4, 6), (9,)]
    assert all(a.ranks == (CULPRIT,) for a in found)
    assert alarms(scored, 9.0, range(12)) == []


def test_what_all_ranks_have_is_nobodys() -> None:
    (found,) = alarms([_step(1, 5.0, middle=4.0)], 2.0, range(3))
    assert found.ranks == ()


def _label(part: str) -> Label:
    truth = Truth(
        kinds=("slow_rank",),
        culprits=(CULPRIT,),
        hosts=(),
        victims=(),
        component="gpu_clock",
        candidates=("gpu_clock",),
        first_step=5,
        last_step=8,
        severity=0.2,
        magnitude=1.0,
        unit="",
        text="",
    )
    return Label(
        case=part,
        task="t",
        part=part,  # type: ignore[arg-type]
        scenario="s",
        steps=tuple(range(12)),
        warm_up=5,
        faults=(truth,) if part == "fault" else (),
    )


def test_the_threshold_lies_between_healthy_and_sick() -> None:
    sick = tuple(_step(at, 6.0 if 5 <= at <= 8 else 1.0) for at in range(12))
    calm = tuple(_step(at, 2.0) for at in range(12))
    cases = [(_label("fault"), sick), (_label("healthy"), calm)]
    threshold, f1 = choose(cases)
    assert 2.0 <= threshold < 6.0
    assert f1 == 1.0
    assert sum(o.false for o in outcomes(cases, threshold)) == 0
    assert choose([(_label("healthy"), ())]) == (math.inf, 0.0)
