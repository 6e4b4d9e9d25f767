"""axe-core looks at the page in a real Chromium: names, roles, contrast, headings, tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kat_otel.report.html import render_html
from kat_otel.spans import SpanTable
from kat_otel.verdict import Report
from tests.report import samples
from tests.report.browser import Browser
from tests.report.npm import package

pytestmark = pytest.mark.browser

RULES = "axe.run(document, {resultTypes: ['violations']})"


@pytest.fixture(scope="module")
def axe() -> str:
    files = {"axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"}
    return (package("axe-core", "4.14.1", files) / "axe.min.js").read_text("utf-8")


def violations(page: Browser, axe: str) -> list[str]:
    page.js(axe + "; 0")
    found: Any = page.js(
        RULES + ".then((r) => r.violations.map((v) => v.id + ': ' + v.nodes.map("
        "(n) => n.html.slice(0, 160) + ' ' + n.failureSummary).join(' | ')))"
    )
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_has_nothing_that_axe_calls_a_barrier(
    page: Browser,
    axe: str,
    tmp_path: Path,
    spans: SpanTable,
    two_incidents: Report,
    dark: bool,
    width: int,
) -> None:
    two_incidents.incidents[1].diagnosis = samples.diagnosis()
    path = tmp_path / "report.html"
    path.write_text(render_html(two_incidents, spans), "utf-8")
    page.open(path, width=width, dark=dark)
    assert violations(page, axe) == []
    page.js("document.getElementById('tab-2').click()")
    assert violations(page, axe) == []


@pytest.mark.parametrize("make", ["none", "abstained"])
def test_pages_without_an_incident_have_none_either(
    page: Browser, axe: str, tmp_path: Path, spans: SpanTable, make: str
) -> None:
    report = samples.report(spans) if make == "none" else samples.abstained()
    path = tmp_path / "plain.html"
    path.write_text(render_html(report, spans), "utf-8")
    page.open(path)
    assert violations(page, axe) == []


def test_axe_sees_a_barrier_where_there_is_one(page: Browser, axe: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><title>t</title><main><button></button></main>", "utf-8")
    page.open(path)
    assert any(found.startswith("button-name") for found in violations(page, axe))
