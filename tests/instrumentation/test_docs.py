"""docs/instrumentation.md says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from kat_otel.instrumentation.engines import ENGINES
from kat_otel.instrumentation.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "instrumentation.md").read_text()


def rows() -> list[str]:
    """The table of settings, as it must stand in the page."""
    found: list[str] = []
    for one in fields(Settings):
        default = one.default
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        shown = shown.lower() if isinstance(default, bool) else shown
        cell = f"`{shown}`" if shown else ""
        found.append(f"| `{one.metadata['variable']}` | {cell} | {one.metadata['doc']} |")
    return found


def test_the_page_has_every_setting_as_it_is() -> None:
    _, _, table = PAGE.partition("| variable | default | what |\n|---|---|---|\n")
    assert table.partition("\n\n")[0].splitlines() == rows()


def test_the_page_has_every_engine_and_its_versions() -> None:
    told = re.findall(r"^\| (\S+?)[ ,][^|]*\| ([\d.]+) to ([\d.]+) \|", PAGE, re.MULTILINE)
    names = {"pytorch": "torch"}
    assert {names.get(name.lower(), name.lower()): list(span) for name, *span in told} == {
        engine.name: [engine.oldest, engine.newest] for engine in ENGINES
    }
