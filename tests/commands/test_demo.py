"""``kat demo``: drawn from a seed, silent while healthy, right in the end, gone afterwards."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from kat_otel.demo.crew import Crew, WorkerFailedError
from kat_otel.demo.scenario import FAULTS, FaultName, Scenario
from kat_otel.demo.stage import perform
from kat_otel.demo.watch import Judged, Watch
from kat_otel.lmdia.recording import record
from kat_otel.spans import SpanTable
from kat_otel.ttad import Detector

HURRIED = {"healthy_steps": 10, "faulty_steps": 6, "interval_ms": 300}


def watched(scenario: Scenario) -> Watch:
    """The scenario without processes: its spans straight into the detector."""
    table = record(scenario.group, range(scenario.steps), program_at=scenario.program_at)
    watch, detector = Watch(scenario, begin_ns=0), Detector()
    for step in range(scenario.steps):
        spans = table.take(table.step == step)
        watch.take(Judged(detector.judge(spans), spans, step * scenario.interval_ms * 1_000_000))
    return watch


def test_a_seed_repeats_the_scenario_and_another_draws_another() -> None:
    assert Scenario.draw(5, 8) == Scenario.draw(5, 8)
    drawn = [Scenario.draw(seed, 8) for seed in range(40)]
    assert {scenario.fault for scenario in drawn} == set(FAULTS)
    assert {scenario.culprit for scenario in drawn} == set(range(8))


def test_a_worker_is_told_the_whole_scenario() -> None:
    scenario = replace(Scenario.draw(5, 8), **HURRIED)
    assert Scenario.from_text(scenario.to_text()) == scenario


def test_nothing_that_leaves_a_worker_says_what_was_injected() -> None:
    scenario = Scenario.draw(5, 4, "clock")
    healthy = record(scenario.group, [0])
    sick = record(scenario.group, [0], program_at=lambda _: scenario.injected.program)
    assert list(healthy.strings) == list(sick.strings)
    assert healthy.resources == sick.resources
    assert healthy.attributes == sick.attributes


def assert_right(watch: Watch) -> None:
    """Named, in time, and nobody else."""
    outcome = watch.outcome
    assert outcome.problems == ()
    assert outcome.right
    assert outcome.delay_s is not None
    assert outcome.delay_s < 5


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", range(3))
def test_each_fault_is_named_and_nobody_else_is(seed: int, fault: FaultName) -> None:
    assert_right(watched(replace(Scenario.draw(seed, 8, fault), **HURRIED)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 130))
def test_demonstrations_at_full_length_end_well(seed: int) -> None:
    assert_right(watched(Scenario.draw(seed, 8)))


def test_the_wrong_culprit_is_not_called_right() -> None:
    scenario = replace(Scenario.draw(1, 8, "clock"), **HURRIED)
    right = watched(scenario)
    mistaken = replace(scenario, culprit=(scenario.culprit + 1) % 8)
    watch = Watch(mistaken, begin_ns=0, incidents=right.incidents)
    assert not watch.outcome.right
    assert any("was not named" in problem for problem in watch.outcome.problems)
    assert any("wrongly blamed" in problem for problem in watch.outcome.problems)


def test_an_incident_in_the_healthy_half_is_a_failure() -> None:
    sick_from_the_start = replace(Scenario.draw(1, 8, "clock"), healthy_steps=2)
    promised_healthy = replace(sick_from_the_start, healthy_steps=8)
    table = record(promised_healthy.group, range(10), program_at=sick_from_the_start.program_at)
    watch, detector = Watch(promised_healthy, begin_ns=0), Detector()
    for step in range(10):
        spans: SpanTable = table.take(table.step == step)
        watch.take(Judged(detector.judge(spans), spans, 0))
    assert not watch.outcome.right
    assert "false alarm before the fault" in watch.outcome.problems[0]


def test_the_whole_demonstration_through_processes_and_the_network(tmp_path: Path) -> None:
    scenario = replace(Scenario.draw(7, 8), **HURRIED)
    console = Console(file=io.StringIO(), width=120)
    page = tmp_path / "new" / "report.html"
    right = perform(scenario, console, page)
    told = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert right, told
    before, _, after = told.partition("INCIDENT in step")
    assert "silent" in before
    assert f"rank {scenario.culprit}" not in before  # shown only at the end
    step = re.match(r" (\d+)", after)
    assert step is not None
    assert int(step[1]) >= scenario.healthy_steps
    assert f"rank {scenario.culprit} makes" in after
    assert "per step" in after
    assert "Named rightly" in after
    assert f"kat demo --seed {scenario.seed}" in after
    assert "<html" in page.read_text(encoding="utf-8")
    assert "\x1b[" not in told  # readable in a pipe


def test_workers_end_with_their_crew_even_in_the_middle_of_it() -> None:
    scenario = replace(Scenario.draw(7, 3), **HURRIED)
    crew = Crew(scenario, port=1)

    def interrupted() -> None:
        with crew:
            crew.start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    for process in crew._processes:
        assert process.poll() is not None


def test_a_worker_that_cannot_send_says_so() -> None:
    scenario = replace(Scenario.draw(7, 3), healthy_steps=1, faulty_steps=1, ranks=3)
    with Crew(scenario, port=1) as crew:  # nobody listens there
        crew.start()
        process = crew._processes[0]
        assert process.wait(30) != 0
        with pytest.raises(WorkerFailedError, match=r"worker \d ended early: [\s\S]*DEADLINE"):
            crew.check()


def test_a_worker_whose_parent_is_gone_ends(tmp_path: Path) -> None:
    scenario = Scenario.draw(7, 3)
    command = [sys.executable, "-m", "kat_otel.demo.worker", scenario.to_text(), "0", "1"]
    worker = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert worker.returncode == 1
    assert worker.stdout.decode().strip() == "ready"


def test_more_workers_than_the_model_splits_into_are_refused() -> None:
    environment = {**os.environ, "COLUMNS": "100"}
    result = subprocess.run(
        [sys.executable, "-m", "kat_otel.cli", "demo", "--ranks", "99"],
        capture_output=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert result.returncode == 2
    assert b"--ranks" in result.stderr
