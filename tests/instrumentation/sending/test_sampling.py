"""What leaves: all ranks decide alike, by the step's number and the same orders."""

from __future__ import annotations

import itertools

import pytest

from kat_otel.capture import Capture, Orders
from kat_otel.instrumentation.sending.sampling import Sampling
from kat_otel.instrumentation.settings import Settings

NONE = (1, 0)


def whole(sampling: Sampling, steps: int = 20) -> list[int]:
    return [step for step in range(steps) if sampling.whole(step)]


def test_every_so_many_steps_one_is_whole() -> None:
    assert whole(Sampling(Settings(sample_every=8))) == [0, 8, 16]
    assert whole(Sampling(Settings(sample_every=1)), 3) == [0, 1, 2]
    assert whole(Sampling(Settings(sample_every=0))) == []


def test_orders_go_before_settings_while_they_hold() -> None:
    sampling = Sampling(Settings(sample_every=8))
    sampling.obey(Orders(sample_every=5))
    assert whole(sampling) == [0, 5, 10, 15]
    sampling.obey(Orders(sample_every=0))
    assert whole(sampling) == []
    sampling.obey(None)
    assert whole(sampling) == [0, 8, 16]


def test_orders_that_say_nothing_of_sampling_leave_it_to_the_settings() -> None:
    sampling = Sampling(Settings(sample_every=8))
    sampling.obey(Orders())
    assert whole(sampling) == [0, 8, 16]


@pytest.mark.parametrize(
    ("settings", "orders", "budget"), [*itertools.product(("full", "digest", "off"), repeat=3)]
)
def test_the_mode_is_the_least_that_anybody_allows(settings, orders, budget) -> None:
    sampling = Sampling(Settings(mode=settings, sample_every=1))
    sampling.obey(Orders(mode=orders, sample_every=1))
    sampling.budget = budget
    modes = {settings, orders, budget}
    least = "off" if "off" in modes else "digest" if "digest" in modes else "full"
    assert sampling.mode == least
    assert sampling.whole(0) == (least == "full")
    sampling.silenced = True
    assert sampling.mode == "off"


def test_next_steps_of_a_capture_are_whole_under_their_own_trace() -> None:
    sampling = Sampling(Settings(sample_every=0))
    sampling.obey(Orders(captures=(Capture("a", NONE, (5, 7), ""), Capture("b", NONE, (7, 8), ""))))
    assert whole(sampling) == [5, 6, 7, 8]
    sampling.obey(Orders())
    assert whole(sampling) == []


def test_recorded_steps_of_a_capture_are_sent_once_when_they_have_closed() -> None:
    sampling = Sampling(Settings())
    capture = Capture("a", (5, 9), NONE, "")
    sampling.obey(Orders(captures=(capture,)))
    assert list(sampling.recorded(6, 7)) == [("a", [6, 7], 1)]  # 5 is gone, 8 is not there yet
    sampling.obey(Orders(captures=(capture,)))  # the next poll says the same
    assert list(sampling.recorded(6, 7)) == []
    assert list(sampling.recorded(6, 30)) == [("a", [8, 9], 0)]
    assert list(sampling.recorded(6, 99)) == []


def test_nothing_is_sent_again_where_whole_steps_are_not_allowed() -> None:
    sampling = Sampling(Settings(mode="digest"))
    sampling.obey(Orders(captures=(Capture("a", (5, 9), NONE, ""),)))
    assert list(sampling.recorded(0, 99)) == []


def test_orders_of_a_hostile_server_are_bounded() -> None:
    sampling = Sampling(Settings())
    huge = Capture("huge", (0, 2**31 - 1), (0, 2**31 - 1), "")
    sampling.obey(Orders(captures=(huge,)))
    ((_, steps, missed),) = sampling.recorded(0, 2**31 - 1)
    assert len(steps) + missed <= 1_001
    for number in range(1_000):
        sampling.obey(Orders(captures=(Capture(str(number), (0, 2**31 - 1), NONE, ""),)))
    assert len(sampling._known) <= 64
