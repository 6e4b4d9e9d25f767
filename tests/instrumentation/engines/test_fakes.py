"""The fakes have what the hooks name, as the contract tests show of the engines themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from kat_otel.instrumentation.engines import ENGINES, Engine
from tests.instrumentation.contracts.check import applies, broken

FAKES = Path(__file__).with_name("fakes")


def read(path: str) -> str | None:
    file = FAKES / path
    return file.read_text() if file.is_file() else None


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_fake_is_the_newest_version_in_all_that_is_hooked(engine: Engine) -> None:
    rows = [row for row in (*engine.hooks, *engine.calls) if applies(row, engine.newest)]
    wrong = {row.where: broken(row, read) for row in rows}
    assert {where: what for where, what in wrong.items() if what} == {}
