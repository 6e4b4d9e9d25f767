"""The documentation keeps what it says: links lead somewhere, output is real output."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
README = (REPOSITORY / "README.md").read_text()


def kat(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "kat_otel", *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_what_the_readme_shows_of_kat_analyze_is_what_it_prints(traces: Path) -> None:
    block = re.search(r"\$ \.venv/bin/kat analyze dlrm_8rank\n(.*?)```", README, re.DOTALL)
    assert block is not None
    shown = [line.rstrip() for line in block[1].splitlines() if line.strip() not in ("", "...")]
    printed = {line.rstrip() for line in kat("analyze", str(traces / "dlrm_8rank")).splitlines()}
    assert len(shown) > 5
    assert [line for line in shown if line not in printed] == [], "renew it: make readme"


def test_every_command_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"(?:^\$ |`)(?:\.venv/bin/)?kat ([a-z]+)", README, re.MULTILINE))
    assert {"analyze", "process", "replay", "demo", "validate"} <= named
    overview = kat("--help")
    assert [name for name in named if not re.search(rf"^  {name} ", overview, re.MULTILINE)] == []


def test_the_architecture_page_has_the_layers_that_are_checked() -> None:
    page = (REPOSITORY / "docs" / "architecture.md").read_text()
    told = re.search(r"checks it: `([^`]*)`", page)
    assert told is not None
    layers = [set(re.findall(r"\w+", layer)) for layer in told[1].split(">")]
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    checked = [
        set(re.findall(r"kat_otel\.(\w+)", layer)) for layer in contracts["contracts"][0]["layers"]
    ]
    assert layers == [layer for layer in checked if layer != {"__main__"}]


def test_every_make_target_that_the_pages_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^\$ |`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page.name
