"""Steps before the worker is known: the latest are kept, within bounds."""

from __future__ import annotations

from kat_otel.instrumentation.sending.early import EarlySteps
from kat_otel.lmdia.recording import Group
from tests.instrumentation.simulated import steps_of


def test_the_oldest_goes_when_there_are_too_many(pair: Group) -> None:
    early = EarlySteps(steps=2)
    assert [early.add(steps_of(pair, number)[1]) for number in range(3)] == [0, 0, 1]
    assert [one.step for one in early.take()] == [1, 2]
    assert len(early) == 0


def test_the_oldest_go_when_they_are_too_large(pair: Group) -> None:
    measure = EarlySteps()
    measure.add(steps_of(pair, 0)[1])
    early = EarlySteps(size=2 * measure.size)
    gone = [early.add(steps_of(pair, number)[1]) for number in range(5)]
    assert sum(gone) == 5 - len(early)
    assert early.size <= 2 * measure.size
    assert early.take()[-1].step == 4
    assert early.size == 0
