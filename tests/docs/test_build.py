"""The site is built as `make docs` builds it: no warning, no link within it that leads nowhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args
from urllib.parse import unquote

import pytest

from kat_otel.verdict import Component
from tests.docs.loading import REPOSITORY

pytestmark = pytest.mark.slow


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    return subprocess.run(
        [*command, str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install -e '.[docs]'")
    target = tmp_path_factory.mktemp("site")
    done = build(REPOSITORY / "docs", target)
    assert done.returncode == 0, done.stderr
    return target


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := said.get(key))}
        for key in ("href", "src"):
            if value := said.get(key):
                self.links.append(value)


def test_every_link_within_the_site_leads_to_a_page_and_an_anchor(site: Path) -> None:
    read: dict[Path, _Links] = {}
    for page in site.rglob("*.html"):
        read[page] = _Links()
        read[page].feed(page.read_text(encoding="utf-8"))
    lost: list[str] = []
    for page, found in read.items():
        for link in found.links:
            if re.match(r"[a-z]+:|//", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            known = read[target].anchors if target in read else None
            if not target.exists() or (anchor and known is not None and anchor not in known):
                lost.append(f"{page.relative_to(site)}: {link}")
    assert lost == []
    assert len(read) > 30


def test_alert_rules_find_a_page_for_every_component(site: Path) -> None:
    pages = {page.stem for page in (site / "runbooks").glob("*.html")}
    assert set(get_args(Component)) <= pages


def test_the_tables_made_from_the_code_are_on_their_pages(site: Path) -> None:
    settings = (site / "settings.html").read_text(encoding="utf-8")
    assert "receiver.queue_size_mib" in settings
    assert "KAT_SAMPLE_EVERY" in settings
    assert "kat.incident.impact" in (site / "names.html").read_text(encoding="utf-8")
    assert "made from the code:" not in settings


def test_a_link_that_leads_nowhere_breaks_the_build(tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    for name in ("conf.py", "_static"):
        origin = REPOSITORY / "docs" / name
        (shutil.copytree if origin.is_dir() else shutil.copy)(origin, source / name)
    shutil.copytree(REPOSITORY / "docs" / "_ext", source / "_ext")
    (source / "index.md").write_text("# Here\n\n[nowhere](no-such-page.md)\n")
    done = build(source, tmp_path / "site")
    assert done.returncode != 0
    assert "no-such-page.md" in done.stderr
