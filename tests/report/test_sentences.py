from __future__ import annotations

import pytest

from kat_otel.report.sentences import (
    culprit_sentence,
    duration_text,
    first_line,
    places_text,
    printable,
    probability_text,
)
from kat_otel.verdict import Culprit, Report
from tests.report import samples


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1 µs"),
        (952_400, "952 µs"),
        (999_900, "1.0 ms"),
        (7_635_000, "7.6 ms"),
        (1_200_000_000, "1.2 s"),
        (83_000_000_000, "83 s"),
    ],
)
def test_durations_have_the_unit_that_suits_them(nanoseconds: int, text: str) -> None:
    assert duration_text(nanoseconds) == text


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.8, "0.80"), (5e-5, "1 in 20,000"), (3e-9, "1 in 10^8"), (0.0, "below 1 in 10^15")],
)
def test_a_false_alarm_probability_is_said_as_odds(probability: float, text: str) -> None:
    assert probability_text(probability) == text


def test_what_could_steer_a_terminal_is_shown_but_has_no_effect() -> None:
    assert printable("a\x1b[2J\u202eb\ud800\n") == "a\\x1b[2J\\u202eb\\ud800\\n"
    assert printable("µs — ok") == "µs — ok"


def test_the_first_line_names_culprit_victims_cost_kind_and_component(
    two_incidents: Report,
) -> None:
    assert first_line(two_incidents) == (
        "rank 7 makes ranks 0-6 wait 2.0 ms per step: late_launch, host_cpu (0.6) — sure"
    )


def test_the_first_line_without_an_incident_says_so() -> None:
    report = samples.report(samples.table())
    assert first_line(report).startswith("No incident: ranks 0-7, 1 step, ")


def test_the_first_line_of_an_abstention_says_why() -> None:
    assert first_line(samples.abstained()) == (
        "No verdict: the trace was sampled — kernels of ranks 0 and 1 don't correspond"
    )


def test_two_sides_of_which_neither_is_known_right_are_not_blamed() -> None:
    incident = samples.late_launch(samples.table())
    incident.culprit = Culprit(ranks=[0, 1], devices=[], hosts=[], sure=False)
    assert culprit_sentence(incident) == "ranks 0-1 differ by 2.0 ms per step, side unknown"


def test_a_whole_group_is_called_all_ranks() -> None:
    incident = samples.late_launch(samples.table())
    incident.culprit.ranks = list(range(8))
    incident.victims = []
    incident.kind = "regression"
    assert culprit_sentence(incident, range(8)) == (
        "all 8 ranks are 2.0 ms per step slower than before"
    )


def test_an_incident_without_a_culprit_rank_names_the_place() -> None:
    incident = samples.late_launch(samples.table())
    incident.culprit = Culprit(ranks=[], devices=[], hosts=[], sure=True)
    incident.link, incident.victims = "node-a:mlx5_0", []
    assert culprit_sentence(incident) == "node-a:mlx5_0 loses 2.0 ms per step"


def test_devices_without_a_uuid_are_called_by_their_number() -> None:
    culprit = Culprit(ranks=[4, 5], devices=["4", "GPU-9e"], hosts=["node-a"], sure=True)
    assert places_text(culprit) == "device 4, GPU-9e on node-a"
