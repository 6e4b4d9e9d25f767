"""What the pages of incidents are made from: the step that shows most, and never too much of it."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from kat_otel.config import DebugConfig
from kat_otel.processor.exhibits import Exhibits
from kat_otel.processor.recent import Recent
from kat_otel.spans import SpanKind
from tests.processor.test_recent import assembled

ROOMY = 2**30
SLOW = {"rank2": 5_000_000}


def seen(report, **changes):
    """The report with its incident changed."""
    incidents = [msgspec.structs.replace(one, **changes) for one in report.incidents]
    return msgspec.structs.replace(report, incidents=incidents)


@pytest.fixture
def play(fleet, judge_class):
    """Returns a function that judges a step and hands it over."""
    judge = judge_class()

    def one(exhibits: Exhibits, number: int, *, bad=True, change=lambda step: step, **changes):
        step = assembled(fleet, number, **(SLOW if bad else {}))
        report = seen(judge.judge(step.table), **changes)
        exhibits.take(step := change(step), report)
        return step

    return one


def digests_alone(step):
    """The step as it is when its workers sent no spans of the GPU."""
    table = step.table
    return replace(step, spans=table.take(table.kind == SpanKind.WORKER_STEP))


def test_an_incident_is_kept_with_its_step_and_the_healthy_one_before_it(play):
    exhibits = Exhibits(8, ROOMY)
    healthy, ill = play(exhibits, 1, bad=False), play(exhibits, 2)
    found = exhibits.find("incident-1")
    assert found.spans.table is ill.spans
    assert found.healthy.table is healthy.spans
    assert (found.instance, found.whole, found.missing) == ("llama", True, "")
    assert [one.id for one in found.report.incidents] == ["incident-1"]


def test_the_latest_step_is_drawn_and_the_facts_are_that_steps(play):
    exhibits = Exhibits(8, ROOMY)
    play(exhibits, 1)
    second = play(exhibits, 2)
    found = exhibits.find("incident-1")
    assert found.spans.table is second.spans
    assert found.incident.spans[0].start_unix_nano in found.spans.table.start_ns.tolist()


def test_digests_and_incomplete_steps_do_not_take_the_place_of_a_whole_one(play):
    exhibits = Exhibits(8, ROOMY)
    whole = play(exhibits, 1, occurrences=1)
    play(exhibits, 2, change=digests_alone, occurrences=2, impact_ns=7, steps=[2], status="ongoing")
    play(exhibits, 3, change=lambda s: replace(s, ending="waited"), occurrences=3, steps=[2, 3])
    found = exhibits.find("incident-1")
    assert found.spans.table is whole.spans
    assert (found.incident.occurrences, found.incident.status) == (3, "ongoing")
    assert found.incident.steps == [1, 2, 3], "the step that is drawn is named with the latest"
    assert found.incident.evidence == found.report.incidents[0].evidence


def test_a_whole_step_takes_the_place_of_digests(play):
    exhibits = Exhibits(8, ROOMY)
    play(exhibits, 1, change=digests_alone)
    assert "only digests came" in exhibits.find("incident-1").missing
    whole = play(exhibits, 2)
    assert exhibits.find("incident-1").spans.table is whole.spans


def test_the_step_that_resolves_an_incident_does_not_show_it(play):
    exhibits = Exhibits(8, ROOMY)
    ill = play(exhibits, 1)
    play(exhibits, 2, status="resolved")
    found = exhibits.find("incident-1")
    assert found.spans.table is ill.spans
    assert found.incident.status == "resolved"
    fresh = Exhibits(8, ROOMY)
    play(fresh, 3, status="resolved")
    assert fresh.find("incident-1").spans is None
    assert "a former process" in fresh.find("incident-1").missing


def test_the_incidents_seen_last_are_kept(play):
    exhibits = Exhibits(2, ROOMY)
    for name in ("a", "b", "a", "c"):
        play(exhibits, 1, id=name)
    assert [one.incident.id for one in exhibits.all()] == ["c", "a"]
    assert exhibits.find("b") is None


def test_beyond_the_memory_given_the_oldest_lose_their_spans_and_say_so(play):
    exhibits = Exhibits(8, ROOMY)
    for number, name in enumerate(("a", "b", "c")):
        play(exhibits, number, id=name)
    one = exhibits.nbytes // 3
    exhibits.resize(8, one + one // 2)
    assert exhibits.nbytes <= one + one // 2
    assert [(e.incident.id, e.spans is None) for e in exhibits.all()] == [
        ("c", False),
        ("b", True),
        ("a", True),
    ]
    assert "debug.reports_mib" in exhibits.find("a").missing
    play(exhibits, 9, bad=False)
    assert exhibits.nbytes <= one + one // 2


def test_a_step_larger_than_all_that_may_be_kept_leaves_its_verdict(play):
    exhibits = Exhibits(8, 100)
    play(exhibits, 1, bad=False)
    play(exhibits, 2)
    assert exhibits.nbytes == 0
    assert exhibits.find("incident-1").report.incidents


def test_texts_that_only_a_kept_step_holds_on_to_count(play):
    """The receiver begins a new table of texts where the old one is full of them."""
    exhibits = Exhibits(8, ROOMY)
    old = play(exhibits, 1, id="a").table.strings
    play(exhibits, 2, id="b")
    columns = sum(one.spans.nbytes for one in exhibits.all())
    assert exhibits.nbytes == columns + old.size_bytes


def test_a_step_of_several_incidents_counts_once(fleet, judge_class):
    exhibits, step = Exhibits(8, ROOMY), assembled(fleet, 1, **SLOW)
    report = judge_class().judge(step.table)
    second = msgspec.structs.replace(report.incidents[0], id="incident-2")
    exhibits.take(step, msgspec.structs.replace(report, incidents=[*report.incidents, second]))
    assert len(exhibits.all()) == 2
    assert exhibits.nbytes == step.table.nbytes


def test_an_instance_that_is_gone_keeps_its_incidents_alone(play):
    exhibits = Exhibits(8, ROOMY)
    play(exhibits, 1, bad=False)
    exhibits.forget("llama")
    assert exhibits.nbytes == 0
    play(exhibits, 2)
    exhibits.forget("llama")
    assert exhibits.find("incident-1").spans is not None


def test_where_nobody_draws_pages_nothing_is_kept_whatever_the_settings_say(play):
    recent = Recent(10)
    recent.reload(DebugConfig(reports=5))
    play(recent.exhibits, 1)
    assert recent.exhibits.all() == []
    drawn = Recent(10, exhibits=Exhibits(0, ROOMY))
    drawn.reload(DebugConfig(reports=5))
    play(drawn.exhibits, 2)
    assert len(drawn.exhibits.all()) == 1


MODELS = {"mode": "model", "causal_chain": [{"claim": "so", "evidence_ids": ["e1", "C1"]}]}


def test_what_a_model_said_later_stands_in_the_report_and_stays_as_steps_go_on(play):
    exhibits = Exhibits(8, ROOMY)
    play(exhibits, 1)
    before = exhibits.find("incident-1")
    exhibits.diagnosed(before.incident, MODELS)
    found = exhibits.find("incident-1")
    assert found is not before, "a page made of it is made anew"
    assert found.incident.diagnosis == MODELS
    assert found.spans is before.spans
    play(exhibits, 2)
    assert exhibits.find("incident-1").incident.diagnosis == MODELS


def test_it_does_not_speak_of_facts_that_are_others_by_now(play):
    exhibits = Exhibits(8, ROOMY)
    play(exhibits, 1)
    exhibits.diagnosed(exhibits.find("incident-1").incident, MODELS)
    evidence = exhibits.find("incident-1").incident.evidence
    assert evidence[0].id == "e1"
    others = [msgspec.structs.replace(evidence[0], signal="another"), *evidence[1:]]
    play(exhibits, 2, evidence=others, diagnosis=None)
    assert exhibits.find("incident-1").incident.diagnosis is None


def test_what_models_said_is_bounded_as_the_incidents_are(play):
    exhibits = Exhibits(2, ROOMY)
    play(exhibits, 1)
    known = exhibits.find("incident-1").incident
    for number in range(5):
        exhibits.diagnosed(msgspec.structs.replace(known, id=f"other-{number}"), MODELS)
    assert len(exhibits._later) == 2
