"""The report on an incident of a running processor: real spans in, the page in a real browser."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
import urllib.error
from types import SimpleNamespace
from urllib.request import Request, urlopen

import msgspec
import pytest

from kat_otel.config import AuthConfig, Config, DebugConfig, ExporterConfig, ReceiverConfig
from kat_otel.processor.exhibits import Exhibits
from kat_otel.processor.incident_pages import IncidentPages
from kat_otel.processor.known_incidents import KnownIncidents
from kat_otel.processor.server import Processor
from kat_otel.report.incident_page import incident_page
from kat_otel.spans import concat
from kat_otel.verdict import from_json
from tests.integration.traffic import Instance, Sender
from tests.processor.conftest import Fleet, StandInJudge
from tests.report.browser import Browser, chromium, executable
from tests.report.test_accessible import axe, violations

__all__ = ["axe"]  # a fixture

LATE = Instance("llama-70b", ranks=4, culprit=2)
FREE = "127.0.0.1:0"


def processor(pages=incident_page, **debug) -> Processor:
    return Processor(
        Config(
            receiver=ReceiverConfig(endpoint=FREE),
            exporter=ExporterConfig(endpoint=None),
            debug=DebugConfig(endpoint=FREE, **debug),
        ),
        pages=pages,
    )


def get(port: int, path: str, token: str = "") -> tuple[int, str, str]:
    """Returns status, body and the content security policy of the answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    asked = Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urlopen(asked, timeout=60) as ok:
            policy = ok.headers.get("content-security-policy", "")
            return ok.status, ok.read().decode(), policy
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), ""


def play(running: Processor, first: int, healthy: int = 4, ill: int = 3) -> int:
    """Sends steps, the last of them with a late rank, until all are judged; returns the next."""
    bad, end = first + healthy, first + healthy + ill
    with Sender(f"127.0.0.1:{running.port}") as sender:
        sender.send(LATE.steps(range(first, bad)))
        sender.send(LATE.steps(range(bad, end), faulty=True))
    port, deadline = running.port_of("debug"), time.monotonic() + 60
    while time.monotonic() < deadline:
        steps = json.loads(get(port, "/debug/steps.json")[1])["steps"]
        if steps and steps[0]["step"] == end - 1:
            return end
        time.sleep(0.05)
    raise AssertionError("not all steps were judged")


@pytest.fixture(scope="module")
def running():
    """A processor that has seen four healthy steps and three with a late rank."""
    with processor() as started:
        play(started, 0)
        yield started


@pytest.fixture(scope="module")
def port(running) -> int:
    return running.port_of("debug")


@pytest.fixture(scope="module")
def incident(port) -> str:
    (live,) = json.loads(get(port, "/debug/live.json")[1])["incidents"]
    return live["id"]


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def test_the_list_leads_to_the_report(port, incident):
    html = get(port, "/debug/steps")[1]
    assert f'href="/incidents/{incident}"' in html
    (listed,) = json.loads(get(port, "/debug/steps.json")[1])["reports"]
    assert (listed["id"], listed["drawn"], listed["instance"]) == (incident, True, "llama-70b")


def test_the_report_is_the_page_of_kat_analyze(port, incident):
    status, html, _ = get(port, f"/incidents/{incident}")
    assert status == 200
    parts = re.findall(r'data-kat="(\w+)"', html)
    assert parts == ["incident", "timeline", "matrix", "evidence", "diagnosis", "kernels", "read"]
    text = text_of(html)
    assert "Rank 2 makes ranks 0-1 and 3 wait" in text
    assert "rank 2 in its last healthy whole step" in text, "kernels stand against history"
    assert "median of the others" in text, "and against the peers"
    assert "Instance llama-70b" in text
    assert 'href="/debug/steps"' in html


def test_the_report_object_comes_as_data(port, incident):
    status, body, _ = get(port, f"/incidents/{incident}.json")
    (told,) = from_json(body).incidents
    assert status == 200
    assert told.id == incident
    assert f'"{incident}"' in get(port, f"/incidents/{incident}")[1], "and stands in the page"


def test_a_resolved_incident_keeps_its_report():
    with processor() as calm:
        play(calm, play(calm, 0), healthy=40, ill=0)
        port = calm.port_of("debug")
        assert json.loads(get(port, "/debug/live.json")[1])["incidents"] == []
        (over,) = json.loads(get(port, "/debug/steps.json")[1])["reports"]
        html = get(port, "/debug/steps")[1]
        assert "Resolved incidents" in html
        assert f'href="/incidents/{over["id"]}"' in html
        page = text_of(get(port, f"/incidents/{over['id']}")[1])
        assert "Status resolved" in page
        assert "Who waits for whom" in page, "the step that showed it is still drawn"


def test_the_first_digits_of_an_id_will_do(port, incident):
    assert get(port, f"/incidents/{incident[:6]}")[0] == 200


@pytest.mark.parametrize("path", ["/incidents/0123", "/incidents/0123.json", "/incidents/%3Cb%3E"])
def test_of_an_unknown_incident_it_says_which_are_known(port, incident, path):
    status, body, _ = get(port, path)
    assert status == 404
    assert f"is known; live are {incident}" in body or "did you mean" in body
    assert "/debug/steps lists" in body


def test_without_somebody_who_draws_it_says_who_does():
    with processor(pages=None) as plain:
        play(plain, 0, healthy=1, ill=1)
        port = plain.port_of("debug")
        (live,) = json.loads(get(port, "/debug/live.json")[1])["incidents"]
        status, body, _ = get(port, f"/incidents/{live['id']}")
        assert (status, "kat process does" in body) == (404, True)
        assert "/incidents/" not in get(port, "/debug/steps")[1]


def test_what_is_kept_of_no_more_is_said():
    with processor(reports=0) as short:
        play(short, 0, healthy=1, ill=1)
        port = short.port_of("debug")
        (live,) = json.loads(get(port, "/debug/live.json")[1])["incidents"]
        status, body, _ = get(port, f"/incidents/{live['id']}")
        assert (status, "debug.reports" in body) == (404, True)


def test_only_who_shows_the_token_sees_it():
    with processor(auth=AuthConfig(token="letmein")) as guarded:
        port = guarded.port_of("debug")
        assert get(port, "/incidents/0123")[0] == 401
        assert get(port, "/incidents/0123", "letmein")[0] == 404


def test_no_other_site_may_frame_it(port, incident):
    _, html, policy = get(port, f"/incidents/{incident}")
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in html, "what it may load and run stands in the page"


def test_a_page_is_made_once_by_one_thread_however_many_ask():
    threads, made = set(), []

    def make(*given):
        made.append(time.monotonic())
        threads.add(threading.current_thread().name)
        time.sleep(0.2)
        return incident_page(*given)

    with processor(pages=make) as busy:
        play(busy, 0, healthy=1, ill=2)
        port = busy.port_of("debug")
        (live,) = json.loads(get(port, "/debug/live.json")[1])["incidents"]
        answers = []
        asking = [
            threading.Thread(target=lambda: answers.append(get(port, f"/incidents/{live['id']}")))
            for _ in range(4)
        ]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert [status for status, *_ in answers] == [200] * 4
        assert len(made) == 1
        assert "kat-judge" not in threads


def test_drawing_rests_for_longer_than_it_takes():
    """Pages take time from the judging thread, as both need the interpreter."""
    drawn = []

    def make(*given):
        begin = time.monotonic()
        time.sleep(0.05)
        html = incident_page(*given)
        drawn.append((begin, time.monotonic()))
        return html

    exhibits, known = Exhibits(8, 2**30), KnownIncidents()
    table = concat(Fleet().step(1, rank2=5_000_000))
    report = StandInJudge().judge(table)
    for name in ("aaaa", "bbbb", "cccc"):
        incident = msgspec.structs.replace(report.incidents[0], id=name)
        step = SimpleNamespace(spans=table, instance="i", ending="complete")
        exhibits.take(step, msgspec.structs.replace(report, incidents=[incident]))
    page = IncidentPages(exhibits, known, make).routes()[1].endpoint
    for name in ("aaaa", "bbbb", "cccc", "cccc"):
        assert page(SimpleNamespace(path_params={"id": name})).status_code == 200
    assert len(drawn) == 3, "the one that was just drawn is handed out again"
    for (begin, end), (following, _) in itertools.pairwise(drawn):
        assert following - end >= 3.9 * (end - begin)


def test_judging_goes_on_while_a_page_is_made():
    begun, go_on = threading.Event(), threading.Event()

    def make(*given):
        begun.set()
        assert go_on.wait(60)
        return incident_page(*given)

    with processor(pages=make) as busy:
        following = play(busy, 0, healthy=1, ill=1)
        port = busy.port_of("debug")
        (live,) = json.loads(get(port, "/debug/live.json")[1])["incidents"]
        asking = threading.Thread(target=get, args=(port, f"/incidents/{live['id']}"))
        asking.start()
        assert begun.wait(60)
        play(busy, following, healthy=2, ill=2)  # returns when these are judged
        go_on.set()
        asking.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = executable()
    if program is None:
        pytest.skip("no Chromium: apt install chromium")
    with chromium(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_in_a_browser_it_draws_fits_and_has_no_barrier(
    browser: Browser, axe, port, incident, width, dark
):
    address = f"http://127.0.0.1:{port}/incidents/{incident}"
    browser.errors.clear()
    browser.requests.clear()
    browser.open(address, width=width, dark=dark)
    assert browser.js("document.documentElement.dataset.kat") == "ready"
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js("document.querySelector('canvas').toDataURL().length") > 5_000
    assert [url for url in browser.requests if not url.startswith("data:")] == [address]
    assert violations(browser, axe) == []
    assert browser.errors == []


@pytest.mark.browser
def test_from_the_list_to_a_span_by_keyboard_alone(browser: Browser, port, incident):
    browser.errors.clear()
    browser.open(f"http://127.0.0.1:{port}/debug/steps")
    browser.tab_to("a[href^='/incidents/']")
    browser.follow()
    assert browser.js("location.pathname") == f"/incidents/{incident}"
    browser.tab_to("canvas")
    browser.press("ArrowRight")
    assert "rank 2" in browser.js("document.getElementById('tip').textContent")
    browser.press("Escape")
    browser.js("document.activeElement.blur()")
    browser.tab_to("a[href='/debug/steps']")
    browser.follow()
    assert browser.js("location.pathname") == "/debug/steps"
    assert browser.errors == []
