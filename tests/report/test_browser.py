"""The page in a real Chromium: it draws, it answers, it injects nothing, it fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from kat_otel.report import timeline
from kat_otel.report.html import render_html
from kat_otel.report.timeline import MAX_SPANS
from kat_otel.spans import SpanTable
from kat_otel.verdict import Report
from tests.report import samples
from tests.report.browser import Browser

pytestmark = pytest.mark.browser

COLOURS = """(() => {
  const c = document.querySelector('canvas');
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  const seen = new Set();
  for (let i = 0; i < d.length; i += 4) seen.add((d[i] << 16) | (d[i + 1] << 8) | d[i + 2]);
  return seen.size;
})()"""

REDRAW = """new Promise((done) => { const t = performance.now();
  redraws.forEach((redraw) => redraw());
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - t))); })"""


@pytest.fixture
def file(tmp_path: Path, two_incidents: Report, spans: SpanTable) -> Path:
    path = tmp_path / "report.html"
    path.write_text(render_html(two_incidents, spans), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def no_errors(page: Browser) -> object:
    page.errors.clear()
    page.requests.clear()
    yield
    assert page.errors == []


def test_the_page_is_ready_without_an_error_and_the_timeline_is_drawn(
    page: Browser, file: Path
) -> None:
    page.open(file)
    assert page.js("document.documentElement.dataset.kat") == "ready"
    assert page.js(COLOURS) > 20
    assert len(page.screenshot()) > 30_000


def test_nothing_but_the_file_is_requested(page: Browser, file: Path) -> None:
    page.open(file)
    assert [url for url in page.requests if not url.startswith("data:")] == [file.as_uri()]


def test_a_hostile_kernel_name_makes_no_element_and_runs_no_script(
    page: Browser, file: Path
) -> None:
    page.open(file)
    assert page.js("document.images.length") == 0
    assert page.js("document.body.textContent.includes('evil</script><img')") is True


def test_the_security_policy_stops_a_script_that_got_in(page: Browser, file: Path) -> None:
    page.open(file)
    page.js(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.pwned = 1';"
        " document.body.append(s); })()"
    )
    assert page.js("window.pwned === undefined") is True
    assert any("Content Security Policy" in error for error in page.errors)
    page.errors.clear()


def test_the_second_incident_is_a_click_or_a_key_away(page: Browser, file: Path) -> None:
    page.open(file)
    hidden = "[...document.querySelectorAll('.incident')].map((a) => a.hidden)"
    assert page.js(hidden) == [False, True]
    page.js("document.getElementById('tab-2').click()")
    assert page.js(hidden) == [True, False]
    page.js("document.getElementById('tab-2').focus()")
    page.press("ArrowLeft")
    assert page.js(hidden) == [False, True]


def test_keys_go_from_span_to_span_and_say_what_they_are(page: Browser, file: Path) -> None:
    page.open(file)
    page.js("document.querySelector('canvas').focus()")
    page.press("ArrowRight")
    first = page.js("document.getElementById('tip').textContent")
    assert "rank 7" in first
    assert page.js("document.getElementById('tip').hidden") is False
    page.press("ArrowRight")
    assert page.js("document.getElementById('live').textContent") != ""
    page.press("ArrowUp")
    assert "rank 6" in page.js("document.getElementById('tip').textContent")
    page.press("Escape")
    assert page.js("document.getElementById('tip').hidden") is True


def test_the_mouse_shows_name_and_duration(page: Browser, file: Path) -> None:
    page.open(file, height=1600)
    box = page.js(
        "(() => { const b = document.querySelector('canvas').getBoundingClientRect();"
        " return [b.left, b.top, b.width]; })()"
    )
    # the last lane's neighbour waits most of the view in its collective band
    page.move_to(box[0] + box[2] / 2, box[1] + 34 + 47 * 0.85)
    tip = page.js("document.getElementById('tip').textContent")
    assert "waiting for the last rank" in tip
    assert "ms" in tip


def test_zooming_redraws(page: Browser, file: Path) -> None:
    page.open(file)
    before = page.js("document.querySelector('canvas').toDataURL()")
    page.js("document.querySelector('[data-do=in]').click()")
    page.js("new Promise(d => requestAnimationFrame(() => requestAnimationFrame(d)))")
    assert page.js("document.querySelector('canvas').toDataURL()") != before


def test_four_hundred_pixels_are_enough(page: Browser, file: Path) -> None:
    page.open(file, width=400)
    assert page.js("document.documentElement.scrollWidth") <= 400
    assert page.js(COLOURS) > 20


def test_dark_mode_changes_page_and_drawing(page: Browser, file: Path) -> None:
    page.open(file)
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.js(colour), page.js("document.querySelector('canvas').toDataURL()")
    page.open(file, dark=True)
    dark = page.js(colour), page.js("document.querySelector('canvas').toDataURL()")
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_ten_thousand_spans_are_one_canvas_and_a_bounded_page(
    page: Browser, tmp_path: Path
) -> None:
    spans = samples.table(layers=260)
    assert len(spans) > 10_000
    path = tmp_path / "large.html"
    path.write_text(render_html(samples.report(spans, samples.late_launch(spans)), spans), "utf-8")
    page.open(path)  # how long it takes: bench/report.py
    assert page.js("document.querySelectorAll('canvas').length") == 1
    assert page.js("document.querySelectorAll('*').length") < 1_500
    data = "JSON.parse(document.querySelector('script.data').textContent)"
    assert 1_000 < page.js(f"{data}.spans.lane.length") <= MAX_SPANS
    assert page.js(COLOURS) > 20


def test_ten_thousand_spans_that_are_all_drawn_take_less_than_a_second(
    page: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline, "MAX_SPANS", 30_000)  # nothing is merged
    spans = samples.table(layers=300)
    path = tmp_path / "large.html"
    path.write_text(render_html(samples.report(spans, samples.late_launch(spans)), spans), "utf-8")
    took = []
    for _ in range(3):  # the best of them: other work on this machine is not the page's
        page.open(path)
        ready = page.js("performance.getEntriesByType('navigation')[0].loadEventEnd")
        page.js("document.querySelector('[data-do=all]').click()")
        took.append(ready + page.js(REDRAW))
    data = "JSON.parse(document.querySelector('script.data').textContent)"
    assert page.js(f"{data}.spans.lane.length") > 10_000
    assert min(took) < 1_000


def test_neighbours_on_the_axis_are_told_apart(page: Browser, file: Path) -> None:
    page.open(file)
    late = "[144.6e6, 144.65e6, 144.7e6].map((t) => tick(t, 5e4))"
    assert page.js(late) == ["144.60 ms", "144.65 ms", "144.70 ms"]
    assert page.js("[0, 5e5, 1e6].map((t) => tick(t, 5e5))") == ["0 ns", "500 µs", "1.0 ms"]
    assert page.js("tick(2e6, 1e6)") == "2 ms"


def test_a_claim_leads_to_its_evidence(page: Browser, tmp_path: Path, spans: SpanTable) -> None:
    incident = samples.late_launch(spans)
    incident.diagnosis = samples.diagnosis()
    path = tmp_path / "diagnosed.html"
    path.write_text(render_html(samples.report(spans, incident), spans), "utf-8")
    page.open(path)
    page.js("document.querySelector('.chain a').click()")
    assert "arrives 2.0 ms after" in page.js("document.querySelector(':target').textContent")


@pytest.mark.parametrize("make", ["none", "abstained", "no table"])
def test_pages_without_drawings_are_ready_too(
    page: Browser, tmp_path: Path, spans: SpanTable, two_incidents: Report, make: str
) -> None:
    html = {
        "none": lambda: render_html(samples.report(spans), spans),
        "abstained": lambda: render_html(samples.abstained(), spans),
        "no table": lambda: render_html(two_incidents),
    }[make]()
    path = tmp_path / "plain.html"
    path.write_text(html, encoding="utf-8")
    page.open(path)
    assert page.js("document.documentElement.dataset.kat") == "ready"


def test_a_sharp_screen_gets_a_sharp_drawing(page: Browser, file: Path) -> None:
    page.open(file, scale=2)
    assert page.js("(c => c.width / c.clientWidth)(document.querySelector('canvas'))") == 2
