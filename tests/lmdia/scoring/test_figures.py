"""Figures and their intervals."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.lmdia.label import Label
from kat_otel.lmdia.scoring.figures import Share, figures, upper_rate, wilson
from kat_otel.lmdia.scoring.match import Found, Outcome


def outcome(*, right: int, false: int, faults: tuple[Found, ...] = ()) -> Outcome:
    label = Label(case="c", task="t", part="fault", scenario="s", steps=(0,), warm_up=0)
    return Outcome(
        label=label, faults=faults, right=right, false=false, allowed=0, false_pages=false
    )


def found(*, found: bool, delay: int | None = None) -> Found:
    return Found(
        severity=0.1,
        lasting=5,
        found=found,
        paged=found,
        delay=delay,
        alarms=int(found),
        first=found,
        asked=found,
        retrieved=found,
        component=False,
        among=found,
    )


def test_precision_and_recall_are_pooled() -> None:
    pooled = figures(
        [
            outcome(right=1, false=0, faults=(found(found=True, delay=2),)),
            outcome(right=0, false=1, faults=(found(found=False),)),
            outcome(right=1, false=0, faults=(found(found=True, delay=0),)),
        ]
    )
    assert pooled.precision == Share(2, 3)
    assert pooled.recall == Share(2, 3)
    assert pooled.culprit == Share(2, 2)
    assert pooled.retrieved == Share(2, 3)
    assert pooled.component == Share(0, 2)
    assert pooled.delay == (1.0, 2.0)
    assert pooled.f1 == pytest.approx(2 / 3)
    assert pooled.false_pages == 1


def test_nothing_has_no_figure() -> None:
    nothing = figures([])
    assert math.isnan(nothing.f1)
    assert str(nothing.recall) == "-"


def test_wilsons_interval_as_published() -> None:
    # Brown, Cai, DasGupta (2001): of 10 with none, 95 %
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(drawn: tuple[int, int]) -> None:
    hits, count = drawn
    low, high = wilson(hits, count)
    assert 0.0 <= low <= hits / count + 1e-12
    assert hits / count - 1e-12 <= high <= 1.0


def test_the_rule_of_three() -> None:
    assert upper_rate(0, 100.0) == pytest.approx(2.9957 / 100.0, rel=1e-3)
    assert upper_rate(2, 1.0) == pytest.approx(6.2958, rel=1e-3)  # Garwood's table
