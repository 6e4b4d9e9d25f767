"""The matching rules: who is right, who is false, and what is counted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kat_otel.lmdia.label import Allowed, Label, Truth
from kat_otel.lmdia.scoring.alarm import Alarm
from kat_otel.lmdia.scoring.match import score

STEPS = tuple(range(20))


def truth(**changes: Any) -> Truth:
    said: dict[str, Any] = {
        "kinds": ("slow_rank",),
        "culprits": (3,),
        "hosts": ("node-0",),
        "victims": (0, 1, 2),
        "component": "gpu_clock",
        "candidates": ("gpu_clock", "gpu_power"),
        "first_step": 10,
        "last_step": 14,
        "severity": 0.2,
        "magnitude": 0.8,
        "unit": "of the clock",
        "text": "rank 3 is slow",
    }
    return Truth(**(said | changes))


def label(*faults: Truth, allowed: tuple[Allowed, ...] = ()) -> Label:
    return Label(
        case="case",
        task="task",
        part="fault" if faults else "confounder",
        scenario="gpu_instability",
        steps=STEPS,
        warm_up=10,
        faults=faults,
        allowed=allowed,
    )


def alarm(**changes: Any) -> Alarm:
    said: dict[str, Any] = {
        "steps": (11, 12, 13),
        "ranks": (3,),
        "kind": "slow_rank",
        "share": 0.2,
        "component": "gpu_clock",
        "candidates": ("gpu_power", "gpu_clock"),
    }
    return Alarm(**(said | changes))


def test_an_alarm_about_the_culprit_in_time_is_right() -> None:
    outcome = score(label(truth()), [alarm()])
    (found,) = outcome.faults
    assert (outcome.right, outcome.false) == (1, 0)
    assert found.found
    assert found.first
    assert found.retrieved
    assert found.component
    assert found.among
    assert found.delay == 1


def test_a_victim_that_is_blamed_is_a_false_alarm_and_a_missed_fault() -> None:
    outcome = score(label(truth()), [alarm(ranks=(2,))])
    (found,) = outcome.faults
    assert (outcome.right, outcome.false, found.found) == (0, 1, False)
    assert found.asked
    assert not found.first
    assert not found.retrieved


def test_a_victim_beside_the_culprit_is_false_and_costs_the_first_place_if_it_costs_more() -> None:
    said = [alarm(), alarm(ranks=(0,), share=0.3)]
    (found,) = score(label(truth()), said).faults
    assert found.found
    assert not found.first
    outcome = score(label(truth()), [alarm(), alarm(ranks=(0,), share=0.1)])
    assert outcome.faults[0].first
    assert outcome.false == 1


def test_culprits_together_with_a_victim_are_wrong() -> None:
    assert score(label(truth()), [alarm(ranks=(3, 2))]).false == 1


def test_part_of_several_culprits_is_right_but_not_first() -> None:
    (found,) = score(label(truth(culprits=(3, 4))), [alarm()]).faults
    assert found.found
    assert not found.first


def test_naming_somebody_where_nobody_differs_is_wrong() -> None:
    everyone = truth(culprits=(), kinds=("slow_transfer",))
    assert score(label(everyone), [alarm(kind="slow_transfer")]).false == 1
    outcome = score(label(everyone), [alarm(kind="slow_transfer", ranks=())])
    assert outcome.faults[0].first
    assert outcome.faults[0].retrieved


def test_an_unknown_side_is_found_without_a_culprit() -> None:
    (found,) = score(label(truth()), [alarm(ranks=(2, 3), sure=False)]).faults
    assert found.found
    assert found.retrieved
    assert not found.first


def test_another_kind_is_wrong_and_no_kind_is_spared() -> None:
    assert score(label(truth()), [alarm(kind="stall")]).false == 1
    assert score(label(truth()), [alarm(kind=None)]).right == 1


def test_time_counts_with_one_step_of_grace() -> None:
    assert score(label(truth()), [alarm(steps=(8, 9))]).false == 1
    assert score(label(truth()), [alarm(steps=(15,))]).right == 1
    assert score(label(truth()), [alarm(steps=(16,))]).false == 1


def test_confounders_may_be_called_what_they_are() -> None:
    pause = Allowed(kinds=("stall",), components=("host_cpu",), ranks=(5,))
    fine = alarm(kind="stall", component="host_cpu", ranks=(5,))
    outcome = score(label(allowed=(pause,)), [fine])
    assert (outcome.allowed, outcome.false) == (1, 0)
    for wrong in (
        alarm(kind="stall", component="gpu_clock", ranks=(5,)),
        alarm(kind="slow_rank", component="host_cpu", ranks=(5,)),
        alarm(kind="stall", component="host_cpu", ranks=(4,)),
    ):
        outcome = score(label(allowed=(pause,)), [wrong])
        assert (outcome.allowed, outcome.false, outcome.false_pages) == (0, 1, 1)


def test_joint_culprits_are_two_faults() -> None:
    both = label(truth(), truth(culprits=(6,)))
    outcome = score(both, [alarm()])
    assert [f.found for f in outcome.faults] == [True, False]
    outcome = score(both, [alarm(), alarm(ranks=(6,))])
    assert [f.found for f in outcome.faults] == [True, True]
    assert outcome.false == 0


def test_cited_spans_are_compared_with_the_changed_ones() -> None:
    (found,) = score(label(truth()), [alarm(spans=(1, 2, 9))], [{1, 2, 3}]).faults
    assert (found.cited, found.hit, found.affected) == (3, 2, 3)


@given(
    st.lists(
        st.builds(
            alarm,
            ranks=st.lists(st.integers(0, 7), max_size=3, unique=True).map(tuple),
            steps=st.lists(st.integers(0, 19), min_size=1, unique=True).map(sorted).map(tuple),
            kind=st.sampled_from(["slow_rank", "stall", None]),
            sure=st.booleans(),
        ),
        max_size=6,
    )
)
def test_every_alarm_is_counted_once(alarms: list[Alarm]) -> None:
    outcome = score(label(truth()), alarms)
    assert outcome.right + outcome.false + outcome.allowed == len(alarms)
    assert len(outcome.told) == outcome.false
    assert outcome.faults[0].found == (outcome.right > 0)
