"""What fails in a hook stays in it."""

from __future__ import annotations

import logging

import pytest

from kat_otel.instrumentation.guard import FAILURES, Guard


def fails(_: object = None) -> None:
    raise ValueError("no such attribute")


def test_a_failure_is_swallowed_and_said_once_with_place_and_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    guard = Guard("vllm.Worker.execute_model", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert guard.run(fails, 1) is None
        assert guard.run(fails, 1) is None
    (said,) = caplog.records
    assert "vllm.Worker.execute_model" in said.message
    assert "no such attribute" in said.message
    assert "KAT_MODE=off" in said.message


def test_after_some_failures_the_hook_is_taken_off_once(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[bool] = []
    guard = Guard("here", lambda: taken.append(True))
    for _ in range(FAILURES + 3):
        guard.run(fails)
    assert taken == [True]
    assert not guard.open
    assert guard.run(lambda: 1) is None
    assert len(caplog.records) == 2


def test_what_works_returns_and_what_ends_the_program_passes() -> None:
    guard = Guard("here", lambda: None)
    assert guard.run(lambda a, b: a + b, 1, 2) == 3

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guard.run(interrupted)
    assert guard.failures == 0


def test_taking_off_may_fail_too(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard("here", fails)
    for _ in range(FAILURES):
        guard.run(fails)
    assert "could not be taken off" in caplog.text
