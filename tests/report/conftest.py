"""A sample step and reports on it, and one Chromium for all tests that look at the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kat_otel.spans import SpanTable
from kat_otel.verdict import Report
from tests.report import samples
from tests.report.browser import Browser, chromium, executable


@pytest.fixture(scope="session")
def spans() -> SpanTable:
    return samples.table()


@pytest.fixture
def two_incidents(spans: SpanTable) -> Report:
    """Rank 7 is late by 2 ms, and, for less, rank 3 has a slow kernel."""
    return samples.report(spans, samples.slow_kernel(spans), samples.late_launch(spans))


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = executable()
    if program is None:
        pytest.skip("no Chromium to look at the HTML report: apt-get install -y chromium")
    with chromium(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser
