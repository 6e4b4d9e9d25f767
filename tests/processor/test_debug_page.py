"""The debug page: what happened last, for people, safe from what workers send."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from starlette.requests import Request

from kat_otel.config import AuthConfig, Config, ExporterConfig, ReceiverConfig
from kat_otel.live import read_live
from kat_otel.operators import Said, Silence, feedback_of
from kat_otel.processor.conditions import Condition
from kat_otel.processor.debug_page import debug_app
from kat_otel.processor.feedback import FeedbackBook
from kat_otel.processor.live_view import LiveView
from kat_otel.processor.recent import Recent
from kat_otel.processor.silences import Silences
from kat_otel.telemetry import Telemetry
from tests.processor.test_recent import assembled
from tests.report.browser import Browser, chromium, executable

HOSTILE = "<script>alert(1)</script>\u202e\x1b[2J"
CONFIG = Config(
    receiver=ReceiverConfig(auth=AuthConfig(token="hunter2")),
    exporter=ExporterConfig(headers={"authorization": "hunter2"}),
)


def ready() -> list[Condition]:
    return [
        Condition("judging", ok=True, detail="runs"),
        Condition("log", ok=False, detail="4,096 of 4,096 MiB in use: raise wal.max_size_mib"),
    ]


@pytest.fixture
def app(make_fleet, judge_class):
    """Ten steps of two instances, one of them hostile, with an incident that pages."""
    telemetry, recent = Telemetry(), Recent(100)
    silences, feedback = Silences(), FeedbackBook()
    telemetry.books.count("acknowledged", 12_345_678)
    telemetry.books.count("dropped", 3, "repeated")
    telemetry.books.mark("export retries", 4)
    telemetry.gauges.set("log_bytes", lambda: 123_456_789)
    for seconds in (0.0002, 0.004, 45.0):
        telemetry.latencies.observe("judge", seconds)
    for instance in ("llama-70b-prefill-7", HOSTILE):
        fleet, judge = make_fleet(instance), judge_class()
        for number in range(5):
            step = assembled(fleet, number, **({"rank2": 5_000_000} if number in {2, 4} else {}))
            if number == 3:
                step = replace(step, ending="waited", missing_ranks=(1, 3))
            report = judge.judge(step.table)
            for incident in report.incidents:
                incident.page = True
                incident.culprit.hosts = ["gpu-node-with-a-long-name-0042.cluster.example"]
            if number == 1:
                from kat_otel.verdict import Abstention

                too_few = Abstention(reason="too few counterparts", detail="")
                report = msgspec.structs.replace(report, abstained=too_few)
            recent.judged(step, report, 0.0123 * number, {0: 1_000, 3: 2_400_000})
    silences.add(
        Silence(
            id="",
            begin_unix_nano=0,
            end_unix_nano=0,
            instance=HOSTILE,
            by=HOSTILE,
            reason=f"ticket 4711 {HOSTILE}",
        ),
        3600,
    )
    instance, incident = recent.known.find("incident-1")
    said = Said(incident=incident.id, verdict="false", by=HOSTILE)
    feedback.add(feedback_of(said, instance, incident, 1))
    view = LiveView(recent, ready, silences, feedback)
    return debug_app(telemetry, recent, view, lambda: CONFIG)


def get(app, path: str, query: bytes = b"") -> str:
    """Calls the page as the server does."""
    (route,) = [route for route in app.routes if route.path == path]
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": query}
    endpoint = route.endpoint(Request(scope))
    assert "script-src" not in endpoint.headers["content-security-policy"]
    assert "default-src 'none'" in endpoint.headers["content-security-policy"]
    return endpoint.body.decode()


def test_the_page_shows_steps_incidents_books_and_settings(app):
    html = get(app, "/debug/steps")
    assert "rank 2 on gpu-node-with-a-long-name-0042.cluster.example: slow kernel" in html
    assert "not judged: too few counterparts" in html
    assert "waited decision_wait, without rank 1, 3" in html
    assert "12,345,678" in html
    assert "decision_wait: 5s" in html
    assert "raise wal.max_size_mib" in html


def test_what_workers_send_makes_no_element_and_moves_nothing(app):
    html = get(app, "/debug/steps")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e\\x1b[2J" in html


def test_secrets_are_hidden_on_the_page_and_in_the_data(app):
    for path in ("/debug/steps", "/debug/steps.json"):
        text = get(app, path)
        assert "hunter2" not in text
        assert "(hidden)" in text


def test_the_same_comes_as_data(app):
    data = json.loads(get(app, "/debug/steps.json"))
    assert len(data["steps"]) == 10
    newest = data["steps"][0]
    assert (newest["instance"], newest["step"], newest["tone"]) == (HOSTILE, 4, "incident")
    assert len(newest["trace_id"]) == 32
    paged, quiet = data["incidents"]
    assert (paged["page"], paged["silence"]) == (True, None)
    assert (quiet["page"], quiet["instance"]) == (False, HOSTILE)
    assert quiet["silence"]["reason"].startswith("ticket 4711")
    assert data["durations"]["judge"]["p50_below_s"] == 0.005
    assert data["durations"]["judge"]["p99_below_s"] is None  # above the last bound
    assert data["settings"]["shutdown_timeout"] == "20s"


@pytest.mark.parametrize(
    ("query", "found"),
    [(b"refresh=5", True), (b"refresh=0x5", False), (b"refresh=-1", False), (b"", False)],
)
def test_it_comes_anew_by_itself_if_asked_to(app, query, found):
    assert ('http-equiv="refresh" content="5"' in get(app, "/debug/steps", query)) is found


def test_silences_verdicts_and_the_latest_ranks_are_on_the_page(app):
    html = get(app, "/debug/steps")
    assert "silenced until" in html
    assert "ticket 4711" in html
    assert "an operator calls it false" in html
    assert "rank 3 2.4 ms" in html


def test_what_goes_on_now_is_the_same_object_on_the_page_and_for_kat_top(app):
    now, page = (json.loads(get(app, f"/debug/{name}.json")) for name in ("live", "steps"))
    assert read_live(json.dumps(now).encode()).schema == "kat.live/v1"
    for key in ("incidents", "instances", "silences", "conditions", "left_out"):
        assert now[key] == page[key]


def test_nothing_happened_is_said():
    recent = Recent(10)
    app = debug_app(Telemetry(), recent, LiveView(recent, list), Config)
    assert "No step was judged since the start." in get(app, "/debug/steps")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = executable()
    if program is None:
        pytest.skip("no Chromium: apt install chromium")
    with chromium(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 760, 1240])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_and_loads_nothing(app, browser: Browser, tmp_path: Path, width, dark):
    file = tmp_path / "debug.html"
    file.write_text(get(app, "/debug/steps"), encoding="utf-8")
    browser.errors.clear()
    browser.requests.clear()
    browser.open(file, width=width, dark=dark)
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js("document.scripts.length") == 0
    assert browser.requests == [file.as_uri()]
    assert browser.errors == []
