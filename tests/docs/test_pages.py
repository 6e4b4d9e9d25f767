"""The pages keep what they promise: a runbook a component, and output that is real."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from kat_otel.report.advice import KIND_MEANING
from kat_otel.verdict import Component
from tests.docs.loading import REPOSITORY, loaded

DOCS = REPOSITORY / "docs"
RUNBOOKS = [DOCS / "runbooks" / f"{component}.md" for component in get_args(Component)]
PARTS = [
    "What it means",
    "What to check",
    "When it is not this",
    "Drain the node when",
    "Leave it alone when",
    "How to know that it is fixed",
]


def test_every_component_has_a_runbook_of_its_name_and_nothing_else_has() -> None:
    found = {page.stem for page in (DOCS / "runbooks").glob("*.md")} - {"index"}
    assert found == set(get_args(Component))


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_answers_the_same_questions(page: Path) -> None:
    text = page.read_text()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == PARTS
    assert f"**Component** `{page.stem}`" in text
    checks = re.findall(r"^\| [^|]+ \| `.*` \| .* \| .* \|$", text, re.MULTILINE)
    assert len(checks) >= 3, "a check says what, with which command, and both outputs"


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_names_kinds_that_exist(page: Path) -> None:
    kinds = re.findall(r"`([a-z]+_[a-z]+|stall|imbalance|structure|regression)`", page.read_text())
    shaped = {kind for kind in kinds if re.match(r"slow_|late_", kind)}
    assert shaped <= set(KIND_MEANING)


@pytest.mark.parametrize("name", ["tutorial.md", "incident.md"])
def test_the_commands_of_a_page_print_what_it_shows(name: str, traces: Path) -> None:
    script = loaded(REPOSITORY / "scripts" / "tutorial_output.py")
    page = (DOCS / name).read_text()
    assert "$ kat analyze" in page
    assert script.renewed(page, traces) == page, "renew it: python scripts/tutorial_output.py"
