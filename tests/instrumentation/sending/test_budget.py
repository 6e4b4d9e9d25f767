"""Above the budget less is recorded, and it is tried again later, ever more rarely."""

from __future__ import annotations

import pytest

from kat_otel.instrumentation.sending.budget import Budget

STEP_NS = 20_000_000


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(budget: Budget, clock: Clock, share: float, seconds: float) -> None:
    """Steps of 20 ms that fill ``seconds``, of which capture takes a share."""
    for _ in range(round(seconds * 1e9 / STEP_NS)):
        clock.now += STEP_NS / 1e9
        budget.observe(STEP_NS, share * STEP_NS)


def test_within_the_budget_nothing_changes(clock: Clock) -> None:
    budget = Budget(0.01, clock)
    run(budget, clock, 0.009, 100)
    assert budget.level == "full"
    assert budget.spent == pytest.approx(0.009)


def test_above_it_the_level_is_lowered_step_by_step(clock: Clock, caplog) -> None:
    budget = Budget(0.01, clock)
    levels = [budget.level]
    for _ in range(50):
        run(budget, clock, 0.02, 1)
        if budget.level != levels[-1]:
            levels.append(budget.level)
    assert levels == ["full", "digest", "off"]
    assert "2.00 % of the steps' time, 1.00 % are allowed" in caplog.text


def test_a_peak_alone_lowers_nothing(clock: Clock) -> None:
    budget = Budget(0.01, clock)
    run(budget, clock, 0.005, 10)
    run(budget, clock, 0.02, 1)
    run(budget, clock, 0.005, 10)
    assert budget.level == "full"


def test_it_is_tried_again_after_a_minute_then_two_then_four(clock: Clock) -> None:
    budget = Budget(0.01, clock)
    run(budget, clock, 0.02, 5)
    assert budget.level == "digest"
    waits = []
    for _ in range(3):
        begin = clock.now
        while budget.level == "digest":
            run(budget, clock, 0.001, 1)  # digests alone are cheap
        waits.append(clock.now - begin)
        run(budget, clock, 0.02, 5)
        assert budget.level == "digest"
    assert waits == [pytest.approx(wait, abs=8) for wait in (60, 120, 240)]


def test_off_is_left_without_a_step_to_tell(clock: Clock) -> None:
    budget = Budget(0.01, clock)
    run(budget, clock, 0.5, 20)
    assert budget.level == "off"
    clock.now += 61
    budget.observe(0, 0)
    assert budget.level == "digest"


def test_a_level_that_holds_makes_the_next_retry_soon_again(clock: Clock) -> None:
    budget = Budget(0.01, clock)
    run(budget, clock, 0.02, 5)
    run(budget, clock, 0.001, 61)
    assert budget.level == "full"
    run(budget, clock, 0.001, 700)
    run(budget, clock, 0.02, 5)
    assert budget.level == "digest"
    run(budget, clock, 0.001, 61)
    assert budget.level == "full"


def test_zero_is_no_limit(clock: Clock) -> None:
    budget = Budget(0.0, clock)
    run(budget, clock, 3.0, 30)
    assert budget.level == "full"
