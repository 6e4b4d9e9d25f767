"""Faults edit what the sick part owns and nothing else; consequences come from the replay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import (
    Injected,
    host_stall,
    late_launches,
    slow_collectives,
    slow_copies,
    slow_kernels,
    slow_rank,
)
from kat_otel.lmdia.recording import Group, record
from kat_otel.lmdia.replay import simulate
from kat_otel.spans import SpanKind

PROGRAM = decode_program(replace(LLAMA_70B, layers=4), workers(4))
KERNELS = np.flatnonzero(PROGRAM.compute)
FAULTS = [
    slow_rank(PROGRAM, 2, 10),
    slow_kernels(PROGRAM, 2, KERNELS[[3, 9]].tolist(), 2.0),
    late_launches(PROGRAM, 2, 5e6, [20]),
    host_stall(PROGRAM, 2, 5e7, 20),
    slow_collectives(PROGRAM, 1.5),
    slow_copies(PROGRAM, 2, 3.0),
]


@pytest.mark.parametrize("injected", FAULTS, ids=lambda i: i.fault.kind)
def test_only_the_affected_operations_change(injected: Injected) -> None:
    changed = np.zeros_like(PROGRAM.present)
    for name in ("gap", "call", "latency", "dispatch", "own"):
        changed |= getattr(injected.program, name) != getattr(PROGRAM, name)
    assert (changed == injected.fault.affected).all()
    assert changed.any()


@pytest.mark.parametrize("injected", FAULTS, ids=lambda i: i.fault.kind)
def test_a_fault_of_one_rank_leaves_the_others_own_times_alone(injected: Injected) -> None:
    others = [row for row in range(4) if row not in injected.fault.ranks]
    if injected.fault.ranks:
        assert not injected.fault.affected[others].any()


def test_a_late_rank_makes_the_others_wait_by_as_much() -> None:
    late = late_launches(PROGRAM, 2, 5e6, [20])
    before, after = simulate(PROGRAM), simulate(late.program)
    assert after.step_ns - before.step_ns == pytest.approx(5e6, rel=0.1)
    own = np.isin(np.arange(len(PROGRAM)), KERNELS)
    assert after.gpu_end[:, own] - after.gpu_start[:, own] == pytest.approx(
        before.gpu_end[:, own] - before.gpu_start[:, own]
    )


def test_a_slow_rank_slows_the_whole_group() -> None:
    before, after = simulate(PROGRAM), simulate(slow_rank(PROGRAM, 1, 10).program)
    compute = PROGRAM.own[1, PROGRAM.compute].sum()
    assert after.step_ns - before.step_ns == pytest.approx(0.1 * compute, rel=0.1)


def test_impossible_faults_are_refused() -> None:
    with pytest.raises(ValueError, match="no rank 9, only 0, 1, 2, 3"):
        slow_rank(PROGRAM, 9, 10)
    collective = int(np.flatnonzero(PROGRAM.collectives)[0])
    with pytest.raises(ValueError, match="is not a kernel"):
        slow_kernels(PROGRAM, 0, [collective], 2.0)


def test_the_same_seed_gives_the_same_recording_and_another_does_not() -> None:
    first, again = (record(Group(PROGRAM, seed=1), range(2)) for _ in range(2))
    other = record(Group(PROGRAM, seed=2), range(2))
    assert (first.start_ns == again.start_ns).all()
    assert (first.duration_ns == again.duration_ns).all()
    assert (first.duration_ns != other.duration_ns).any()


def test_the_noise_is_a_few_percent_and_has_no_favourite() -> None:
    group = Group(PROGRAM, seed=4)
    ratios = np.array([group.play(step)[0].own / PROGRAM.own for step in range(40)])
    kernels = np.log(ratios[:, :, PROGRAM.compute])
    assert 0.005 < kernels.std() < 0.08
    assert abs(np.median(kernels)) < 0.01


def test_a_step_follows_the_one_before() -> None:
    table = record(Group(PROGRAM, seed=1), range(3))
    steps = table.kind == SpanKind.WORKER_STEP
    for step in (1, 2):
        ended = table.end_ns[steps & (table.step == step - 1)].max()
        assert table.start_ns[steps & (table.step == step)].min() > ended
    assert len(table.resources) == PROGRAM.ranks
