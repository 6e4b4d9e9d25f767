"""Tables that the site makes from the code name everything that the code has."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from kat_otel import semconv
from kat_otel.config import Config
from kat_otel.instrumentation.settings import Settings
from kat_otel.rules.files import alert_groups
from kat_otel.rules.records import groups
from tests.docs.loading import extension

pages = extension("pages_from_code")


def keys(section: type, path: str = "") -> set[str]:
    """Every setting that is no section itself, as YAML has it."""
    out: set[str] = set()
    for name, field in section.model_fields.items():
        inner = re.search(r"kat_otel\.config\.(\w+Config)", str(field.annotation))
        key = f"{path}{name}"
        if inner is None:
            out.add(key)
            continue
        listed = "[]" if "tuple" in str(field.annotation) else ""
        module = __import__("kat_otel.config", fromlist=[inner[1]])
        out |= keys(getattr(module, inner[1]), f"{key}{listed}.")
    return out


def test_every_setting_is_named_or_refers_to_the_same_section_of_another_port() -> None:
    page = pages.processor_settings()
    named = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))
    referring = set(re.findall(r"^### `([^`]+)`\n\nThe same settings as", page, re.MULTILINE))
    expected = {key for key in keys(Config) if key.rpartition(".")[0] not in referring}
    assert named == expected
    assert "receiver.queue_size_mib" in named
    assert "detector.collectives[].pattern" in named
    assert referring <= {key.rpartition(".")[0] for key in keys(Config)}


@pytest.mark.parametrize(
    ("key", "cells"),
    [
        ("receiver.queue_size_mib", ["whole number, 1 or more", "`256`", "MiB"]),
        ("assembler.decision_wait", ["duration", "`5s`", "s, or as `500ms`, `5s`, `1m30s`"]),
        ("assembler.over_limit", ["`judge_early` or `refuse`", "`judge_early`", ""]),
        ("detector.false_alarm_rate", ["number, above 0, below 1", "`0.0001`", "share, 0 to 1"]),
        ("health.endpoint", ["text or null", "`127.0.0.1:13133`, where the port is free", ""]),
    ],
)
def test_type_default_and_unit_of_a_setting_are_those_of_the_code(
    key: str, cells: list[str]
) -> None:
    row = next(r for r in pages.processor_settings().splitlines() if r.startswith(f"| `{key}` |"))
    assert [cell.strip() for cell in row.split("|")[2:5]] == cells


def test_every_variable_of_a_worker_is_there() -> None:
    named = re.findall(r"^\| `([A-Z_]+)` \|", pages.worker_variables(), re.MULTILINE)
    assert named == [one.metadata["variable"] for one in fields(Settings)]


def test_every_name_of_semconv_is_told_with_a_meaning() -> None:
    told = {name: (value, text) for rows in pages.names().values() for name, value, text in rows}
    constants = {n: v for n, v in vars(semconv).items() if n.isupper() and isinstance(v, str)}
    assert {name: value for name, (value, _) in told.items()} == constants
    assert [name for name, (_, text) in told.items() if len(text) < 10] == []


def test_a_name_without_a_meaning_is_an_error(tmp_path, monkeypatch) -> None:
    bare = tmp_path / "semconv.py"
    bare.write_text('# --- span -----\nSTEP: Final = "kat.step"\nRANK: Final = "kat.rank"\n')
    monkeypatch.setattr(semconv, "__file__", str(bare))
    with pytest.raises(ValueError, match=r"line 2: STEP has no text under it"):
        pages.names()


def test_every_alert_is_told_with_its_severities_and_its_runbook() -> None:
    alerts = [alert for group in alert_groups() for alert in group.rules]
    rows = dict(
        re.findall(r"^\| \[`(\w+)`\]\(\S+\.md\S*\) \| (.*) \|$", pages.alerts(), re.MULTILINE)
    )
    assert set(rows) == {alert.name for alert in alerts}
    for alert in alerts:
        assert f"**{alert.severity}**: {alert.when}" in rows[alert.name]


def test_every_recorded_series_is_told() -> None:
    told = re.findall(r"^\| `(\S+)` \|", pages.records(), re.MULTILINE)
    assert told == [record.name for group in groups() for record in group.rules]


def test_a_cell_cannot_break_out_of_its_table() -> None:
    parts = ("processor_settings", "worker_variables", "attributes", "alerts", "records")
    for page in (getattr(pages, part)() for part in parts):
        tables = [line for line in page.splitlines() if line.startswith("|")]
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
        assert len(widths) == 1
