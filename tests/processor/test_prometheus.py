"""``GET /metrics``: every figure under a name that the documentation describes."""

import re
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kat_otel.otlp import encode_traces
from kat_otel.processor.http import HttpServer
from kat_otel.processor.prometheus import METRICS, metrics_app, registry_of
from kat_otel.processor.recent import Recent
from kat_otel.telemetry import Explanations, Telemetry
from tests.processor.receiving import Receivers, by_grpc

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture
def telemetry() -> Telemetry:
    """Something of everything that can be counted, timed or read."""
    telemetry = Telemetry()
    telemetry.books.count("acknowledged", 100)
    telemetry.books.count("dropped", 3, "repeated")
    telemetry.books.mark("decoded spans", 103)
    telemetry.books.mark("decoded bytes", 9_000)
    telemetry.books.mark("steps complete", 2)
    telemetry.books.mark("export retries", 4)
    telemetry.books.mark("steps left in the log", 3)  # not judged: no ending of a step
    telemetry.books.give_up("logs", "export UNIMPLEMENTED", 5)
    telemetry.books.reject("metrics", 6)
    telemetry.latencies.observe("decode", 0.003)
    telemetry.latencies.observe("verdict", 0.2)
    telemetry.gauges.set("log_bytes", lambda: 4096)
    telemetry.explanations = Explanations()
    telemetry.explanations.count("rejected", ["no_json"])
    return telemetry


@pytest.fixture
def scrape(telemetry):
    server = HttpServer(
        "prometheus",
        "127.0.0.1:0",
        metrics_app(registry_of(telemetry, Recent(10))),
        None,
        key="prometheus",
    )
    server.start()

    def get(accept: str = "text/plain") -> tuple[str, str]:
        url = f"http://127.0.0.1:{server.port}/metrics"
        with urlopen(Request(url, headers={"Accept": accept}), timeout=20) as answer:
            return answer.headers["Content-Type"], answer.read().decode()

    yield get
    server.stop()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_spans_are_told_by_outcome_and_the_books_balance(scrape):
    found = samples(scrape()[1])

    def spans(outcome: str, reason: str = "") -> float:
        return found[
            "kat_processor_spans_total", frozenset({("outcome", outcome), ("reason", reason)})
        ]

    assert spans("acknowledged") == 100
    assert spans("dropped", "repeated") == 3
    assert spans("recovered") == 0  # there from the start: rate() sees the first increase
    assert found["kat_processor_pending_spans", frozenset()] == 97


def test_counts_of_no_spans_durations_and_levels_are_told(scrape):
    found = samples(scrape()[1])
    assert found["kat_processor_decoded_bytes_total", frozenset()] == 9_000
    assert found["kat_processor_steps_total", frozenset({("ending", "complete")})] == 2
    assert found["kat_processor_events_total", frozenset({("event", "export retries")})] == 4
    given_up = frozenset({("signal", "logs"), ("reason", "export UNIMPLEMENTED")})
    assert found["kat_processor_export_given_up_total", given_up] == 5
    assert found["kat_processor_export_rejected_total", frozenset({("signal", "metrics")})] == 6
    assert found["kat_processor_export_rejected_total", frozenset({("signal", "logs")})] == 0
    assert found["kat_processor_log_bytes", frozenset()] == 4096
    bucket = "kat_processor_work_duration_seconds_bucket"
    assert found[bucket, frozenset({("work", "decode"), ("le", "0.0025")})] == 0
    assert found[bucket, frozenset({("work", "decode"), ("le", "0.005")})] == 1
    assert found[bucket, frozenset({("work", "decode"), ("le", "+Inf")})] == 1
    assert found["kat_processor_verdict_latency_seconds_sum", frozenset()] == pytest.approx(0.2)


def test_steps_are_told_by_why_they_were_judged_and_by_nothing_else(telemetry, scrape):
    for name in ("steps failed", "steps in part after a restart", "steps left in the log"):
        telemetry.books.mark(name)
    endings = {
        dict(labels)["ending"]: value
        for (name, labels), value in samples(scrape()[1]).items()
        if name == "kat_processor_steps_total"
    }
    assert endings == {"complete": 2, "waited": 0, "limit": 0, "shutdown": 0}
    said = re.search(r"`ending` is (.*?)\.", PAGE.read_text(), re.DOTALL).group(1)
    assert set(re.findall(r"`(\w+)`", said)) - {"decision_wait"} == set(endings)


def test_a_sender_that_is_held_up_moves_what_the_documentation_watches(fleet):
    (query,) = re.findall(r"held up\? \| `(.*)` \|", PAGE.read_text())
    name, label, value = re.search(r'(\w+)\{(\w+)="([\w ]+)"\}', query).groups()

    def watched() -> float:
        page = generate_latest(registry_of(telemetry, Recent(1))).decode()
        return samples(page)[name, frozenset({(label, value)})]

    with Receivers(queue_size_mib=1) as receivers:
        telemetry = Telemetry()
        telemetry.books = receivers.books
        assert watched() == 0
        data = b"".join(encode_traces(fleet.rank(0, 0)))
        data += b"\xfa\x7f\x80\x80\x20" + bytes(2**19)  # half of the queue, unknown to OTLP
        said = [by_grpc(receivers.grpc.port, data).outcome for _ in range(3)]
        assert (said[0], said[-1]) == ("taken", "later")
        assert watched() == said.count("later")


def test_incidents_are_told_by_kind_and_component_only(fleet, judge_class):
    from tests.processor.test_recent import assembled

    telemetry, recent = Telemetry(), Recent(10)
    step = assembled(fleet, 0, rank2=5_000_000)
    recent.judged(step, judge_class().judge(step.table))
    families = {family.name: family for family in registry_of(telemetry, recent).collect()}
    (opened,) = families["kat_processor_incidents"].samples
    assert opened.labels == {"kind": "slow_kernel", "component": "gpu_compute"}
    active = {s.labels["page"]: s.value for s in families["kat_processor_active_incidents"].samples}
    assert active == {"false": 1, "true": 0}


def test_a_scraper_that_asks_for_openmetrics_gets_it(scrape):
    content_type, text = scrape("application/openmetrics-text; version=1.0.0")
    assert "openmetrics" in content_type
    assert text.endswith("# EOF\n")


def test_the_documentation_describes_every_metric_and_no_other(telemetry):
    row = re.compile(r"^\| `(kat_\w+)` \| (\w+) \| (.*) \| (.+) \|$", re.MULTILINE)
    described = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text)
        for name, kind, labels, text in row.findall(PAGE.read_text())
    }
    assert described == {m.name: (m.kind, m.labels, m.help) for m in METRICS}
    exported = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in registry_of(telemetry, Recent(1)).collect()
    }
    levels = {m.name for m in METRICS if m.kind == "gauge"}  # told once somebody sets them
    own = {name for name in exported if name.startswith("kat_")}
    assert own <= set(described)
    assert set(described) - own <= levels


def test_every_query_of_the_documentation_names_labels_that_exist(scrape):
    found = samples(scrape()[1])
    queries = re.findall(r"(kat_processor_\w+)\{([^}]*)\}", PAGE.read_text())
    assert len(queries) >= 5
    for name, wanted in queries:
        for label, value in re.findall(r'(\w+)="([^"]*)"', wanted):
            assert any(n == name and (label, value) in labels for n, labels in found), (name, value)


def test_every_query_of_the_documentation_names_metrics_that_exist():
    named = set(re.findall(r"kat_processor_\w+", PAGE.read_text()))
    known = {m.name for m in METRICS}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} <= known
