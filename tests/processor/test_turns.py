"""Runs of an instance do not wait for each other."""

from __future__ import annotations

import pytest

from kat_otel.capture import capture_nonce
from kat_otel.config import AssemblerConfig
from kat_otel.processor.assembler import Assembler
from kat_otel.spans import SpanTable

WAIT, ORDER = 5.0, 0.5


@pytest.fixture
def assembler() -> Assembler:
    return Assembler(AssemblerConfig(decision_wait=WAIT, order_wait=ORDER))


def recorded_of(make_fleet, capture: str):
    """The fleet whose steps are those of a capture: the same instance, a nonce of their own."""
    fleet = make_fleet()
    fleet.nonce = capture_nonce(fleet.nonce, capture)
    return fleet


def stream(assembler: Assembler, fleet, steps: range, extra: dict[int, list[SpanTable]]):
    """Sends steps ten a second, of which one always lacks a rank; yields what is judged when."""
    for step in steps:
        now = 0.1 * step
        before, after = fleet.step(step - 1)[-1:], fleet.step(step)[:-1]
        # The last rank of a step comes after the first ones of the next: one is always pending.
        for table in [*after, *before, *extra.get(step, [])]:
            assembler.add(table, now)
        yield from ((now, one) for one in assembler.ready(now))


def is_of(fleet, step) -> bool:
    return step.trace[0] == int(fleet.rank(0, 0).trace_hi[0])


def test_recorded_steps_are_judged_while_the_stream_goes_on(assembler, fleet, make_fleet):
    recorded = recorded_of(make_fleet, "a")
    extra = {40: recorded.step(33), 41: recorded.step(34)}
    judged = list(stream(assembler, fleet, range(1, 100), extra))
    when = {step.step: now for now, step in judged if is_of(recorded, step)}
    assert when == pytest.approx({33: 4.0 + ORDER, 34: 4.0 + ORDER})
    live = [step.step for _, step in judged if is_of(fleet, step)]
    assert live == list(range(live[0], 99))
    assert {step.ending for _, step in judged if step.step} == {"complete"}


def test_every_run_keeps_its_own_order(assembler, fleet, make_fleet):
    recorded = [recorded_of(make_fleet, name) for name in ("a", "b")]
    extra = {
        40: [*recorded[0].step(35), *recorded[1].step(31)],
        42: [*recorded[0].step(34), *recorded[1].step(30)[1:]],
        44: [*recorded[0].step(33), *recorded[1].step(30)[:1]],
    }
    judged = list(stream(assembler, fleet, range(1, 100), extra))
    ours = [[step.step for _, step in judged if is_of(run, step)] for run in recorded]
    assert ours == [[33, 34, 35], [30, 31]]


def test_a_run_that_lacks_a_rank_holds_up_itself_alone(assembler, fleet, make_fleet):
    recorded = recorded_of(make_fleet, "a")
    extra = {20: [*recorded.step(15)[1:], *recorded.step(16)]}
    judged = list(stream(assembler, fleet, range(1, 100), extra))
    ours = [(now, step.step, step.ending) for now, step in judged if is_of(recorded, step)]
    assert ours == [(2.0 + WAIT, 15, "waited"), (2.0 + WAIT, 16, "complete")]
    live = [step.step for now, step in judged if is_of(fleet, step) and now < 2.0 + WAIT]
    assert live[-1] == 68


def test_at_a_limit_and_at_the_end_the_run_that_came_first_goes_first(fleet, make_fleet):
    assembler = Assembler(AssemblerConfig(decision_wait=WAIT, max_pending_steps=2))
    recorded = recorded_of(make_fleet, "a")
    for table in (fleet.rank(0, 9), recorded.rank(0, 3), recorded.rank(0, 2)):
        assembler.add(table, 0.0)
    assert [(step.step, step.ending) for step in assembler.ready(0.0)] == [(9, "limit")]
    assert [(step.step, step.ending) for step in assembler.flush()] == [
        (2, "shutdown"),
        (3, "shutdown"),
    ]


def test_runs_without_end_are_not_remembered(assembler, fleet, make_fleet):
    for number in range(100):
        assembler.add(recorded_of(make_fleet, str(number)).rank(0, 7), float(number))
        list(assembler.ready(float(number)))
    turns = assembler._instances["llama"]
    assert len(turns.runs) <= 16
    assert len(turns.waiting) == len(turns.pending) <= WAIT + 1
    assert len(list(assembler.flush())) == len(turns.records) - 100 + WAIT
    assert turns.waiting == {}
