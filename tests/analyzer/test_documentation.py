"""``docs/analyzer.md`` says what the code does: reasons, outcomes, options, what may leave."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import click
import pytest

from kat_otel.analyzer.pack import MAX_TOKENS
from kat_otel.analyzer.reasons import Failure, Rejection
from kat_otel.analyzer.send import EVERYTHING
from kat_otel.commands.explain import explain
from kat_otel.processor.config_file import parse_config
from kat_otel.semconv import EVENT_DIAGNOSIS
from kat_otel.telemetry import Explanation

PAGE = (Path(__file__).parents[2] / "docs" / "analyzer.md").read_text()


def first_cells(heading: str) -> set[str]:
    """What stands in backquotes in the first column of the table under a heading."""
    after = PAGE[PAGE.index(heading) :]
    rows = after[: after.index("\n\n")].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_reason_for_which_an_answer_is_not_taken_is_described():
    assert first_cells("| reason |") == set(get_args(Rejection))
    no_answer = PAGE[PAGE.index("No answer has reasons") :].split("\n\n")[0]
    assert set(get_args(Failure)) <= set(re.findall(r"`(\w+)`", no_answer))


def test_every_outcome_is_described():
    assert first_cells("| outcome |") == set(get_args(Explanation))


def test_what_may_leave_is_described():
    assert first_cells("| part |") == EVERYTHING


def test_the_options_are_the_commands():
    options = {
        name
        for option in explain.params
        if isinstance(option, click.Option)
        for name in option.opts
    }
    named = {name for name in first_cells("| option |") if name.startswith("--")}
    assert named <= options
    assert {"--endpoint", "--model", "--send", "--dry-run", "--deadline"} <= named


def test_the_settings_shown_are_taken():
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = parse_config(shown, "page", {"KAT_ANALYZER_KEY": "k"})
    assert config.analyzer.endpoint == "https://llm.example/v1"
    assert EVENT_DIAGNOSIS in PAGE


@pytest.mark.parametrize("attributes", re.findall(r"`((?:kat|gen_ai)\.[\w.]+)`", PAGE))
def test_names_of_attributes_and_metrics_exist(attributes: str):
    from kat_otel import semconv

    known = {value for name, value in vars(semconv).items() if name.isupper()}
    theirs = {"gen_ai.client.token.usage", "gen_ai.client.operation.duration"}
    assert attributes in known | theirs or attributes.startswith("kat_otel")


def test_the_size_of_a_pack_is_the_limit():
    assert f"at most {MAX_TOKENS:,} tokens" in PAGE
