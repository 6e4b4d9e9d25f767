from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from kat_otel.report.schema import SCHEMA_FILE, published_schema, schema_text
from kat_otel.spans import SpanTable
from kat_otel.verdict import Report, from_json, to_json
from tests.report import samples


def test_the_published_schema_is_that_of_the_classes() -> None:
    published = (resources.files("kat_otel.report") / SCHEMA_FILE).read_text("utf-8")
    assert published == schema_text(), "run: python -m kat_otel.report.schema"


def test_the_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(published_schema())


def test_sample_reports_are_valid_and_survive_the_way_through_json(two_incidents: Report) -> None:
    for report in (two_incidents, samples.abstained()):
        jsonschema.validate(json.loads(to_json(report)), published_schema())
        assert from_json(to_json(report)) == report


@pytest.mark.parametrize(
    "change",
    [{"schema": "kat.report/v2"}, {"incidents": None}, {"extra": 1}],
    ids=["version", "type", "unknown field"],
)
def test_what_is_not_the_report_is_refused(
    two_incidents: Report, change: dict[str, object]
) -> None:
    wrong = {**json.loads(to_json(two_incidents)), **change}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, published_schema())


def test_a_missing_field_is_refused(two_incidents: Report) -> None:
    wrong = json.loads(to_json(two_incidents))
    del wrong["incidents"][0]["culprit"]
    with pytest.raises(jsonschema.ValidationError, match="culprit"):
        jsonschema.validate(wrong, published_schema())


@pytest.mark.parametrize(
    "folder",
    [
        "dlrm_8rank",
        "nsys_h100_2gpu_mfu_before",
        "nsys_h100_2gpu_wan_sp2",
        "hta_sampled_2of128",
        "tracelens_h100_qwen_single",
    ],
)
def test_reports_on_real_traces_are_valid(traces: Path, folder: str) -> None:
    from kat_otel.readers import read
    from kat_otel.ttad import analyze

    taken = read([traces / folder])
    report = analyze(taken.table, files=taken.files, notes=taken.notes)
    jsonschema.validate(json.loads(to_json(report)), published_schema())


def test_the_report_on_nothing_is_valid_too() -> None:
    from kat_otel.ttad import analyze

    jsonschema.validate(json.loads(to_json(analyze(SpanTable.empty()))), published_schema())
