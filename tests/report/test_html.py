"""What the page holds; how it looks and behaves is in test_browser."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from kat_otel.report.html import render_html
from kat_otel.spans import SpanTable
from kat_otel.verdict import Culprit, Instance, Report, from_json
from tests.report import samples


class Outline(HTMLParser):
    """Tags, attributes and visible text of a page, as a browser would see them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._hidden = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend(attrs)
        if tag in {"script", "style"}:
            self._hidden = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden = ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data + " "


def parts(html: str) -> list[str]:
    return re.findall(r'data-kat="(\w+)"', html)


def test_a_page_shows_headline_timeline_arrivals_kernels_and_evidence(
    two_incidents: Report, spans: SpanTable
) -> None:
    html = render_html(two_incidents, spans)
    one = ["incident", "timeline", "matrix", "evidence", "kernels"]
    assert parts(html) == [*one, *one, "read"]
    text = Outline(html).text
    assert "Rank 7 makes ranks 0-6 wait 2.0 ms per step." in text
    assert "e1 rank 7 arrives 2.0 ms after the median of the others" in text
    assert text.index("Rank 7 makes") < text.index("Rank 3 makes")


def test_without_spans_the_page_still_says_all_that_is_known(two_incidents: Report) -> None:
    html = render_html(two_incidents)
    assert "matrix" not in parts(html)
    text = Outline(html).text
    assert "No timeline: the spans themselves were not given" in text
    assert "Against the expected time" in text


@pytest.mark.parametrize("tone", ["ok", "unknown"])
def test_no_incident_and_no_verdict_have_their_own_headline(tone: str, spans: SpanTable) -> None:
    report = samples.report(spans) if tone == "ok" else samples.abstained()
    html = render_html(report, spans)
    assert f'class="verdict {tone}"' in html
    said = "No incident." if tone == "ok" else "No verdict: the trace was sampled."
    assert said in Outline(html).text


def test_nothing_is_loaded_from_anywhere(two_incidents: Report, spans: SpanTable) -> None:
    outline = Outline(render_html(two_incidents, spans))
    links = [value for name, value in outline.attributes if name in {"src", "href", "action"}]
    assert set(links) == {"data:,", "#main"}
    policy = next(v for n, v in outline.attributes if n == "content" and v and "default-src" in v)
    assert policy.startswith("default-src 'none'")


def test_a_hostile_kernel_name_stays_text(two_incidents: Report, spans: SpanTable) -> None:
    html = render_html(two_incidents, spans)
    outline = Outline(html)
    assert "img" not in outline.tags
    assert not any(name.startswith("on") for name, _ in outline.attributes)
    # two timelines, the report and the program; none was closed by a name
    assert outline.tags.count("script") == 4
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_hostile_texts_in_every_field_stay_text(spans: SpanTable) -> None:
    evil = samples.HOSTILE
    incident = samples.late_launch(spans)
    incident.culprit = Culprit(ranks=[7], devices=[evil], hosts=[evil], sure=True)
    incident.group = incident.link = evil
    incident.diagnosis = {"summary": evil, "actions": [evil]}
    incident.evidence[0].id = incident.evidence[0].text = evil
    incident.spans[0].name = incident.spans[0].trace_id = evil
    report = samples.report(spans, incident, notes=(evil,))
    report.source.files = [evil]
    outline = Outline(render_html(report, spans))
    assert "img" not in outline.tags
    assert outline.tags.count("script") == 3


def test_the_report_object_is_in_the_page(two_incidents: Report, spans: SpanTable) -> None:
    html = render_html(two_incidents, spans)
    found = re.search(r'id="kat-report">(.*?)</script>', html, re.DOTALL)
    assert found
    assert from_json(found.group(1)) == two_incidents


def test_timeline_data_is_json_of_equal_columns(two_incidents: Report, spans: SpanTable) -> None:
    html = render_html(two_incidents, spans)
    blocks = re.findall(r'class="data">(.*?)</script>', html, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        data = json.loads(block)
        lengths = {len(column) for column in data["spans"].values()}
        assert len(lengths) == 1
        assert max(data["spans"]["name"]) < len(data["names"])


def test_pages_of_long_steps_stay_small() -> None:
    spans = samples.table(layers=600)
    html = render_html(samples.report(spans, samples.late_launch(spans)), spans)
    assert len(html) < 1_500_000


def test_a_diagnosis_is_shown_with_its_evidence_and_actions(spans: SpanTable) -> None:
    incident = samples.late_launch(spans)
    incident.diagnosis = samples.diagnosis()
    html = render_html(samples.report(spans, incident), spans)
    text = " ".join(Outline(html).text.split())
    assert "Root cause garbage collection" in text
    assert "Confidence 70 %" in text
    assert "Freeze the garbage collector after warm-up." in text
    assert 'href="#evidence-1-e1"' in html
    assert 'id="evidence-1-e1"' in html
    assert "e9" in text
    assert 'href="#evidence-1-e9"' not in html, "a link leads somewhere"


def test_a_diagnosis_that_abstains_says_so(spans: SpanTable) -> None:
    incident = samples.late_launch(spans)
    incident.diagnosis = {"abstained": True}
    text = Outline(render_html(samples.report(spans, incident), spans)).text
    assert "Abstained. No diagnosis was given." in " ".join(text.split())
    assert "See what held the rank's process back" in text


def test_a_diagnosis_that_abstains_with_a_reason_says_it_once(spans: SpanTable) -> None:
    incident = samples.late_launch(spans)
    incident.diagnosis = {"abstained": True, "summary": "no cause can be named"}
    text = Outline(render_html(samples.report(spans, incident), spans)).text
    assert text.count("no cause can be named") == 1
    assert "No diagnosis was given" not in text


def test_an_incident_that_costs_nothing_has_no_figure_of_its_cost(spans: SpanTable) -> None:
    incident = samples.slow_kernel(spans)
    incident.impact_ns, incident.culprit.sure = 0, False
    text = " ".join(Outline(render_html(samples.report(spans, incident), spans)).text.split())
    assert "Rank 3 differs, side unknown." in text
    assert "Cost per step none Kind" in text


def test_a_running_instance_is_named_where_files_would_be(spans: SpanTable) -> None:
    report = samples.report(spans, samples.late_launch(spans))
    report.source.files = []
    report.instance = Instance(id="llama", model="llama-70b", parallelism={"tp": 8, "pp": 1})
    text = " ".join(Outline(render_html(report, spans)).text.split())
    assert "Instance llama Model llama-70b Parallelism TP 8 Recorded step 12, begun 2023-" in text
    assert "Files" not in text


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"summary": 1, "actions": "x", "causal_chain": {}},
        {"causal_chain": [1, {"claim": 2}], "culprit_ranks": ["a", True], "confidence": "nan"},
    ],
)
def test_a_diagnosis_of_an_odd_form_leaves_the_page_whole(odd: Any, spans: SpanTable) -> None:
    incident = samples.late_launch(spans)
    incident.diagnosis = odd
    assert parts(render_html(samples.report(spans, incident), spans))[-1] == "read"
