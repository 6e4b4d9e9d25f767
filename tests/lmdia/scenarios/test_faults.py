"""Faults: they reach the severity asked for, at the culprit alone, and everybody else waits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.replay import simulate
from kat_otel.lmdia.scenarios.faults import SCENARIOS
from kat_otel.lmdia.scenarios.scenario import Scenario, TooMildError, tune
from kat_otel.lmdia.tasks.catalog import task_named
from kat_otel.lmdia.tasks.step import step_program
from kat_otel.lmdia.tasks.work import schedule

RANKS = 4
FLEET = tuple(replace(w, host=f"node-{w.rank // 2}") for w in workers(RANKS))
PROGRAM = decode_program(replace(LLAMA_70B, layers=4), FLEET)
ONE_HOST = decode_program(replace(LLAMA_70B, layers=4), workers(RANKS))
CULPRIT = 1
_EVERY = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda s: s.name)


def _program(scenario: Scenario):
    return ONE_HOST if scenario.name == "gpu_memory_squeeze_out_NVLink" else PROGRAM


def test_there_are_eleven_and_the_eight_published_ones_bear_their_names() -> None:
    assert len(SCENARIOS) == 11
    assert {
        "cpu_compute_squeeze_out",
        "cpu_frequency_reduction",
        "gpu_instability",
        "gpu_memory_squeeze_out_NVLink",
        "gpu_memory_squeeze_out_PCIe",
        "cpu_swap",
        "gpu_preemption",
        "gpu_swap",
    } < set(SCENARIOS)


@_EVERY
def test_candidates_are_three_at_most_and_hold_the_component(scenario: Scenario) -> None:
    assert scenario.component in scenario.candidates
    assert len(scenario.candidates) <= 3


@_EVERY
@given(severity=st.sampled_from([0.02, 0.05, 0.2, 0.5]), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_the_step_gets_as_much_longer_as_asked_for(
    scenario: Scenario, severity: float, seed: int
) -> None:
    program = _program(scenario)
    assert scenario.applies(program, CULPRIT)
    tuned = tune(scenario, program, CULPRIT, severity, seed)
    assert tuned.severity == pytest.approx(severity, rel=0.02)
    assert 0 < tuned.magnitude <= scenario.most
    edit = scenario.edit(program, CULPRIT, tuned.magnitude, np.random.default_rng(seed))
    longer = simulate(edit.program).step_ns / simulate(program).step_ns - 1
    assert longer == pytest.approx(tuned.severity, abs=1e-9)


@_EVERY
def test_only_what_the_sick_part_owns_is_changed(scenario: Scenario) -> None:
    program = _program(scenario)
    tuned = tune(scenario, program, CULPRIT, 0.2, 5)
    edit = scenario.edit(program, CULPRIT, tuned.magnitude, np.random.default_rng(5))
    changed = np.zeros_like(edit.affected)
    for name in ("gap", "call", "latency", "dispatch", "own"):
        changed |= getattr(edit.program, name) != getattr(program, name)
    assert changed.any()
    assert not (changed & ~edit.affected).any()
    rows = set(np.flatnonzero(edit.affected.any(axis=1)).tolist())
    assert rows == ({CULPRIT} if scenario.place == "rank" else set(range(RANKS)))


@_EVERY
def test_the_others_wait_in_their_collectives(scenario: Scenario) -> None:
    if scenario.place == "group":
        return  # nobody is the culprit
    program = _program(scenario)
    tuned = tune(scenario, program, CULPRIT, 0.5, 5)
    edit = scenario.edit(program, CULPRIT, tuned.magnitude, np.random.default_rng(5))
    before, after = simulate(program), simulate(edit.program)
    waits = program.collectives
    longer = (after.gpu_end - after.gpu_start) - (before.gpu_end - before.gpu_start)
    spent = longer[:, waits].sum(axis=1)
    assert (np.delete(spent, CULPRIT) > spent[CULPRIT]).all()


def test_what_the_slack_hides_is_refused_with_what_could_be_had() -> None:
    task = task_named("wan2.1-14b.vllm.mixed")
    program = step_program(task, schedule(task, 1)(0))
    with pytest.raises(TooMildError, match=r"at most .* % longer .* 50 % were asked for"):
        tune(SCENARIOS["cpu_frequency_reduction"], program, 0, 0.5, 1)


def test_a_network_needs_two_hosts_and_links_one() -> None:
    assert not SCENARIOS["nic_congestion"].applies(ONE_HOST, CULPRIT)
    assert SCENARIOS["nic_congestion"].applies(PROGRAM, CULPRIT)
    assert SCENARIOS["gpu_memory_squeeze_out_NVLink"].applies(ONE_HOST, CULPRIT)
    assert not SCENARIOS["gpu_memory_squeeze_out_NVLink"].applies(PROGRAM, CULPRIT)


def test_memory_and_clock_are_told_apart_by_what_bounds_a_kernel() -> None:
    task = task_named("qwen3-8b.vllm.mixed")
    program = step_program(task, schedule(task, 1)(0))
    share = np.array([op.memory_share for op in program.operations])
    rng = np.random.default_rng(1)
    clock = SCENARIOS["gpu_instability"].edit(program, 0, 2.0, rng).program.own[0]
    memory = SCENARIOS["hbm_degradation"].edit(program, 0, 2.0, rng).program.own[0]
    kernels = program.compute & program.present[0]
    by_clock = (clock / np.maximum(program.own[0], 1))[kernels]
    by_memory = (memory / np.maximum(program.own[0], 1))[kernels]
    assert np.corrcoef(by_clock, share[kernels])[0, 1] < -0.99
    assert np.corrcoef(by_memory, share[kernels])[0, 1] > 0.99
