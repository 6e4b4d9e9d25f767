from __future__ import annotations

import io

from kat_otel.analyzer import with_diagnoses
from kat_otel.report.advice import KIND_MEANING, usual_step
from kat_otel.report.text import print_text, render_text
from kat_otel.spans import SpanTable
from kat_otel.verdict import Clock, Report, json_schema
from tests.report import samples


def test_the_culprit_stands_in_the_first_line(two_incidents: Report) -> None:
    first = render_text(two_incidents).splitlines()[0]
    assert first.startswith("rank 7 makes ranks 0-6 wait 2.0 ms per step")


def test_incidents_are_listed_by_impact(two_incidents: Report) -> None:
    rows = [line.split() for line in render_text(two_incidents).splitlines()]
    listed = [row[:2] for row in rows if row and row[0] in {"1", "2"}]
    assert listed == [["1", "7"], ["2", "3"]]


def test_evidence_and_what_to_do_next_follow(two_incidents: Report) -> None:
    text = render_text(two_incidents)
    assert "e1: rank 7 arrives 2.0 ms after the median of the others" in text
    assert "Next: See what held the rank's process back" in text
    assert "It could also be: host_memory (0.25)" in text


def test_what_was_read_and_what_could_not_be_judged_is_said(spans: SpanTable) -> None:
    report = samples.report(spans, notes=("rank 9 is missing",))
    report.source.clock = Clock(state="corrected", max_offset_ns=3_000_000)
    text = render_text(report)
    assert "Read: 8 files, ranks 0-7 (8 of 8), 1 step" in text
    assert "Clocks: corrected by the ends of collectives, offset at most 3 ms" in text
    assert "- 4 kernels have no counterpart to compare with" in text
    assert "- rank 9 is missing" in text


def test_a_pipe_gets_no_colours_no_padding_and_at_most_120_columns(
    two_incidents: Report,
) -> None:
    stream = io.StringIO()
    print_text(two_incidents, stream)
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert all(line == line.rstrip() for line in lines)
    assert max(map(len, lines)) <= 120


def test_the_first_line_is_never_wrapped(spans: SpanTable) -> None:
    report = samples.abstained()
    assert report.abstained is not None
    report.abstained.detail = "why " * 60
    assert render_text(report, width=80).splitlines()[0].endswith("why why")


def test_kernel_names_cannot_write_to_the_terminal(two_incidents: Report) -> None:
    text = render_text(two_incidents)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b[2J" in text


def test_many_incidents_and_notes_are_bounded(spans: SpanTable) -> None:
    many = [samples.late_launch(spans) for _ in range(200)]
    report = samples.report(spans, *many, notes=tuple(f"note {k}" for k in range(500)))
    text = render_text(report)
    assert "and 180 smaller incidents" in text
    assert "and 488 more notes (--format json has all)" in text
    assert len(text.splitlines()) < 100


def test_every_kind_and_component_of_the_contract_has_its_words() -> None:
    fields = json_schema()["$defs"]["Incident"]["properties"]
    assert set(KIND_MEANING) == set(fields["kind"]["enum"])
    for component in fields["component"]["enum"]:
        assert usual_step(component)


def test_a_diagnosis_says_what_to_do_before_our_own_table_does(spans: SpanTable) -> None:
    incident = samples.late_launch(spans)
    incident.diagnosis = {"summary": "GC", "actions": ["freeze the collector"]}
    assert "Next: freeze the collector" in render_text(samples.report(spans, incident))


def test_the_embedded_diagnosis_names_cause_confidence_and_the_facts_it_is_from() -> None:
    spans = samples.table()
    incident = samples.late_launch(spans)
    incident.evidence[0].signal = "walk_launch"
    said = render_text(with_diagnoses(samples.report(spans, incident)))
    assert "Diagnosis: rank 7: the process launches its work late (late_host, 0.6, from e1)" in said
    incident.culprit.sure = False
    said = render_text(with_diagnoses(samples.report(spans, incident)))
    assert "Diagnosis: rank 7: no cause can be named (side unknown)" in said
