"""The short way of a healthy step: its report, and what is learnt of it, are the long way's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import (
    host_stall,
    late_launches,
    slow_collectives,
    slow_copies,
    slow_kernels,
    slow_rank,
)
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.recording import Group, record
from kat_otel.spans import SpanTable, concat
from kat_otel.ttad import Detector, Settings
from kat_otel.ttad.healthy import HealthyStep, ShortWay
from kat_otel.ttad.state import snapshot
from kat_otel.verdict import to_json

STEPS = 30
FAULTY = range(18, 22)


def program_of(ranks: int, layers: int = 4, batch: int = 32) -> Program:
    return decode_program(replace(LLAMA_70B, layers=layers, batch=batch), workers(ranks))


def launches_late(program: Program) -> Program:
    return late_launches(program, 1, 3e5, [20, 40]).program


def stall(program: Program) -> Program:
    return host_stall(program, 0, 5e6, 10).program


def kernels(factor: float) -> Callable[[Program], Program]:
    def change(program: Program) -> Program:
        some = np.flatnonzero(program.compute)[5:25:4].tolist()
        return slow_kernels(program, 1, some, factor).program

    return change


def copies(program: Program) -> Program:
    return slow_copies(program, 0, 30).program


def rank(percent: float) -> Callable[[Program], Program]:
    return lambda program: slow_rank(program, 1, percent).program


def transfers(factor: float) -> Callable[[Program], Program]:
    return lambda program: slow_collectives(program, factor).program


def everybody(program: Program) -> Program:
    return program.with_times(own=program.own * np.where(program.compute, 1.4, 1.0))


FAULTS: dict[str, Callable[[Program], Program]] = {
    "nothing": lambda program: program,
    "launches": launches_late,
    "stall": stall,
    "kernels": kernels(2.5),
    "kernels, nearly": kernels(1.5),
    "copies": copies,
    "rank": rank(15),
    "rank, nearly": rank(4),
    "rank, hardly": rank(2),
    "transfers": transfers(1.5),
    "transfers, nearly": transfers(1.2),
    "everybody": everybody,
}


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which steps ended on the short way, as they are judged."""
    taken: list[bool] = []
    look = ShortWay.look

    def noted(self: ShortWay, *given) -> HealthyStep | None:
        seen = look(self, *given)
        taken.append(seen is not None)
        return seen

    monkeypatch.setattr(ShortWay, "look", noted)
    return taken


def judged(steps: list[SpanTable], settings: Settings | None = None) -> list[tuple[bytes, bytes]]:
    """Each step's report, and what the judge has learnt then."""
    judge = Detector(settings)
    return [(to_json(judge.judge(step)), snapshot(judge)) for step in steps]


def assert_both_ways_alike(
    steps: list[SpanTable], monkeypatch: pytest.MonkeyPatch, settings: Settings | None = None
) -> None:
    short = judged(steps, settings)
    with monkeypatch.context() as long:
        long.setattr(ShortWay, "look", lambda *_: None)
        assert judged(steps, settings) == short


def recorded(
    program: Program, seed: int, fault: Callable[[Program], Program], steps: int = STEPS
) -> list[SpanTable]:
    sick = fault(program)
    whole = record(
        Group(program, seed), range(steps), program_at=lambda s: sick if s in FAULTY else program
    )
    return [whole.take(whole.step == step) for step in range(steps)]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_reports_and_history_are_those_of_the_long_way(
    ranks: int, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        steps = recorded(program_of(ranks), 100 * ranks + seed, FAULTS[fault])
        assert_both_ways_alike(steps, monkeypatch)


@pytest.mark.parametrize("ranks", [2, 8])
def test_most_healthy_steps_end_on_the_short_way(ranks: int, ways: list[bool]) -> None:
    judged(recorded(program_of(ranks), 5, FAULTS["nothing"], steps=60))
    assert not any(ways[: Settings().min_history])  # nothing is usual yet
    assert np.mean(ways[Settings().min_history :]) > 0.8


def test_faults_go_the_long_way(ways: list[bool]) -> None:
    judged(recorded(program_of(4), 6, FAULTS["rank"]))
    assert not any(ways[step] for step in FAULTY)
    assert any(ways[FAULTY.stop :])


def test_work_that_alternates_is_compared_with_its_like(
    monkeypatch: pytest.MonkeyPatch, ways: list[bool]
) -> None:
    parts = [recorded(program_of(3, layers), layers, FAULTS["rank"]) for layers in (3, 4, 5)]
    steps = [part[at] for at in range(STEPS) for part in parts]
    assert_both_ways_alike(steps, monkeypatch)
    assert sum(ways) > STEPS


def test_a_shape_that_differs_in_its_grids_alone_is_another(
    monkeypatch: pytest.MonkeyPatch, ways: list[bool]
) -> None:
    steps = recorded(program_of(2), 8, FAULTS["nothing"])
    text = steps[0].strings.add("7,7,7")
    larger = [s.with_columns(grid=np.where(s.grid != 0, text, 0)) for s in steps]
    mixed = [*steps[:20], *larger[20:]]
    assert_both_ways_alike(mixed, monkeypatch)
    assert any(ways[10:20])
    assert not any(ways[20:25])


def moved(table: SpanTable, rank: int, by_ns: int) -> SpanTable:
    return table.with_columns(start_ns=table.start_ns + np.where(table.rank == rank, by_ns, 0))


def without(table: SpanTable, rank: int) -> SpanTable:
    return table.take(table.rank != rank)


def no_gpu_work(table: SpanTable, rank: int) -> SpanTable:
    return table.take((table.rank != rank) | ~table.on_gpu)


def extra_kernel(table: SpanTable, rank: int) -> SpanTable:
    row = np.flatnonzero(table.on_gpu & (table.rank == rank))[-1]
    return concat([table, table.take(np.array([row]))])


def other_grid(table: SpanTable, rank: int) -> SpanTable:
    grid = table.grid.copy()
    grid[np.flatnonzero(table.on_gpu & (table.rank == rank))[::3]] = table.strings.add("1,2,3")
    return table.with_columns(grid=grid)


def orphans(table: SpanTable, rank: int) -> SpanTable:
    return table.with_columns(parent=np.where(table.rank == rank, -1, table.parent))


def other_groups(table: SpanTable, rank: int) -> SpanTable:
    other = table.strings.add("another communicator")
    return table.with_columns(group=np.where(table.rank == rank, other, table.group))


def mixed(table: SpanTable, rank: int) -> SpanTable:
    return table.take(np.random.default_rng(rank).permutation(len(table)))


ODD: dict[str, Callable[[SpanTable], SpanTable]] = {
    "clocks apart": lambda table: moved(table, 1, 5_000_000),
    "clocks a little apart": lambda table: moved(table, 1, 20_000),
    "a rank is missing": lambda table: without(table, 1),
    "a rank without work": lambda table: no_gpu_work(table, 2),
    "a kernel more": lambda table: extra_kernel(table, 0),
    "another grid": lambda table: other_grid(table, 1),
    "no launches": lambda table: orphans(table, 2),
    "communicators differ": lambda table: other_groups(table, 0),
    "rows in any order": lambda table: mixed(table, 3),
    "nothing": lambda _: SpanTable.empty(),
    "late": lambda table: moved(table, 3, 300_000),
    "another stage": lambda table: replace(
        table, resources=(replace(table.resources[0], pp=1), *table.resources[1:])
    ),
    "a coarse clock": lambda table: replace(
        table, resources=tuple([replace(r, resolution_ns=1_000) for r in table.resources])
    ),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_steps_are_judged_as_on_the_long_way(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for ranks in (4, 5):
        steps = recorded(program_of(ranks, layers=3), 9, FAULTS["nothing"])
        some = [ODD[odd](s) if at in FAULTY or at > 26 else s for at, s in enumerate(steps)]
        assert_both_ways_alike(some, monkeypatch)


@pytest.mark.parametrize("odd", ODD)
def test_workers_that_are_always_odd_are_judged_as_on_the_long_way(
    odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = recorded(program_of(4, layers=3), 10, FAULTS["rank"])
    assert_both_ways_alike([ODD[odd](s) for s in steps], monkeypatch)


def test_thresholds_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = recorded(program_of(4), 11, FAULTS["rank, nearly"])
    for given in (
        Settings(false_alarm_rate=0.05, min_rank_excess=0.005, min_impact_fraction=0.0001),
        Settings(min_kernel_excess=0.02, min_history=2, false_alarm_rate=0.2),
        Settings(min_transfer_excess=0.001, min_pool=2, false_alarm_rate=0.3, history_steps=4),
    ):
        assert_both_ways_alike(steps, monkeypatch, given)
