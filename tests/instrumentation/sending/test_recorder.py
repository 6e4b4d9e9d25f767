"""The flight recorder keeps the last steps whole, within its seconds and bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.instrumentation.capture.records import StepFlag
from kat_otel.instrumentation.sending.recorder import Recorder
from kat_otel.instrumentation.steps.step import Step
from kat_otel.lmdia.recording import Group
from kat_otel.spans import COLUMNS, Resource, SpanTableBuilder
from tests.instrumentation.simulated import steps_of


def a_step(number: int, spans: int = 10) -> Step:
    builder = SpanTableBuilder()
    builder.add_resource(Resource())
    builder.append(spans, start_ns=np.arange(spans), step=number)
    return Step(number, 0, StepFlag.NONE, builder.build())


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_steps_are_held_for_their_seconds() -> None:
    clock = Clock()
    recorder = Recorder(10, 2**30, clock)
    assert recorder.first == 0
    for number in range(5):
        recorder.add(a_step(number))
        clock.now += 4
    assert [step.step for step in recorder.take(0, 99)] == [3, 4]
    assert recorder.first == 3
    clock.now += 100
    assert recorder.take(0, 99) == []
    assert recorder.first == 5  # the next one is the oldest that can be promised
    assert recorder.size == 0


def test_a_step_comes_back_as_it_went_in_and_smaller(pair: Group) -> None:
    recorder = Recorder(10, 2**30)
    step = steps_of(pair, 3)[1]
    recorder.add(step)
    (kept,) = recorder.take(3, 3)
    for name in COLUMNS:
        assert (getattr(kept.table, name) == getattr(step.table, name)).all()
        assert getattr(kept.table, name).dtype == COLUMNS[name].dtype
    assert kept.table.nbytes < 0.7 * step.table.nbytes
    assert recorder.take(4, 9) == []


def test_a_view_keeps_no_larger_array_alive() -> None:
    large = np.arange(1_000_000)
    step = a_step(1)
    step = Step(1, 0, StepFlag.NONE, step.table.with_columns(start_ns=large[:10]))
    recorder = Recorder(10, 2**30)
    recorder.add(step)
    assert recorder.take(1, 1)[0].table.start_ns.base is None


@settings(deadline=None)
@given(st.lists(st.integers(1, 2_000), max_size=40), st.integers(0, 200_000))
def test_the_bytes_are_bounded_whatever_comes(sizes: list[int], limit: int) -> None:
    recorder = Recorder(1e9, limit)
    for number, spans in enumerate(sizes):
        recorder.add(a_step(number, spans))
        assert recorder.size <= limit
    held = [step.step for step in recorder.take(0, 99)]
    assert held == list(range(recorder.first, len(sizes)))  # the newest, without a gap


def test_steps_that_begin_anew_are_another_run() -> None:
    recorder = Recorder(1e9, 2**30)
    for number in (5_000, 5_001, 0, 1):
        recorder.add(a_step(number))
    assert recorder.first == 0
    assert [step.step for step in recorder.take(0, 10_000)] == [0, 1]
