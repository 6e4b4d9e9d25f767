"""The committed rules: as they are made, sound, told of, and asking only for what is emitted."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from kat_otel.made_files import differing
from kat_otel.operators import Verdict
from kat_otel.processor.assembled import Ending
from kat_otel.rules.files import files
from kat_otel.rules.incidents import alert_name
from kat_otel.rules.processor import DEFECTS, NOT_JUDGED
from kat_otel.rules.rule import DOCS
from kat_otel.telemetry import Outcome
from kat_otel.verdict import Component
from tests.dashboards.asked import asked
from tests.dashboards.emitted import SCRAPED, emitted
from tests.rules.promtool import promtool
from tests.rules.reading import ALERTS, FILES, FOLDER, RECORDS, RULES, asked_in_texts

REPOSITORY = Path(__file__).parents[2]
LEVELS = {
    "kat_instance": {"kat_instance_id"},
    "kat_component": {"kat_component"},
    "kat_rank": {"kat_instance_id", "kat_rank"},
    "kat_host": {"kat_instance_id", "host_name", "kat_rack", "kat_switch"},
}
"""What a recorded series is summed up by: the first part of its name."""
MORE = {
    "kat_instance:step_time_seconds:rate5m": {"kat_part"},
    "kat_instance:step_time_ratio:rate5m": {"kat_part"},
}
RECORDED = {
    name: frozenset(LEVELS[name.partition(":")[0]] | MORE.get(name, set())) for name in RECORDS
}
KNOWN = emitted() | RECORDED | {"up": SCRAPED}
EVERY_ALERT = pytest.mark.parametrize(
    "alert", ALERTS.values(), ids=["-".join(which) for which in ALERTS]
)


# --- files ---------------------------------------------------------------------------------


def test_the_committed_files_are_what_is_made():
    assert differing(files(), FOLDER) == [], f"run: kat rules --out {FOLDER}"


def test_prometheus_takes_them():
    done = promtool("check", "rules", *FILES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(FILES)


def test_a_rule_that_prometheus_does_not_take_is_noticed(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text(FILES[1].read_text().replace("humanizeDuration", "humaniseDuration", 1))
    assert promtool("check", "rules", broken).returncode != 0


def test_another_budget_changes_its_alerts_and_nothing_else():
    ours, theirs = (files(share)["kat-alerts.yaml"].splitlines() for share in (0.01, 0.02))
    changed = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    assert changed
    assert all("0.0" in a or "0.1" in a or " 1 %" in a for a, _ in changed), changed
    assert any("> 0.2" in b for _, b in changed)


# --- queries -------------------------------------------------------------------------------


def shown(alert: dict[str, Any]) -> frozenset[str]:
    """Labels that an alert's texts name."""
    return frozenset(re.findall(r"\$labels\.(\w+)", str(alert["annotations"])))


def holds(expression: str, labels: frozenset[str] = frozenset()) -> None:
    """Every series that is asked for is emitted or recorded, with the labels that it needs."""
    for series, needed in asked(expression, labels):
        assert series in KNOWN, expression
        assert needed <= KNOWN[series], f"{series} never has {sorted(needed - KNOWN[series])}"


@EVERY_ALERT
def test_an_alert_asks_only_for_series_and_labels_that_there_are(alert):
    holds(alert["expr"], shown(alert))
    texts = list(asked_in_texts(alert))
    assert len(texts) == str(alert["annotations"]).count("| query")
    for expression in texts:
        holds(expression)


@pytest.mark.parametrize("name", RECORDS)
def test_a_recorded_series_has_the_labels_that_its_level_says(name):
    holds(RECORDS[name], RECORDED[name])
    summed = re.findall(r"\bby \((.*?)\)", RECORDS[name])
    assert {label for by in summed for label in by.split(", ")} - {"le"} <= RECORDED[name] | {
        "kat_rank"
    }


def test_a_label_that_is_never_emitted_is_noticed():
    with pytest.raises(AssertionError, match="never has"):
        holds('up{kat_rack="1"} > 0')
    with pytest.raises(AssertionError, match="do not come through"):
        holds("sum by (job) (up)", frozenset({"instance"}))


def test_values_that_are_asked_for_are_of_the_closed_lists():
    values = {"outcome": Outcome, "ending": Ending, "verdict": Verdict}
    text = " ".join(rule["expr"] for rule in RULES)
    for label, listed in values.items():
        found = set(re.findall(rf'\b{label}="(\w+)"', text))
        assert found
        assert found <= set(get_args(listed))


def test_every_defect_that_the_processor_counts_raises_an_alert():
    counted = {
        event
        for file in (REPOSITORY / "kat_otel" / "processor").glob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("defects.guard")
        for event in [ast.literal_eval(call.args[1])]
    }
    harmless = {"parts not folded"}  # it takes more memory, and that is watched
    assert {*NOT_JUDGED, *DEFECTS} == counted - harmless | {"requests stuck"}


# --- what a person reads -------------------------------------------------------------------


@EVERY_ALERT
def test_an_alert_says_what_it_costs_and_what_to_do(alert):
    assert alert["labels"] == {"severity": alert["labels"]["severity"]}
    assert alert["labels"]["severity"] in {"page", "ticket"}
    description = alert["annotations"]["description"]
    assert re.search(r"(^|\. )Cost: .+ Do: .+", description, re.DOTALL)
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}


@EVERY_ALERT
def test_its_runbook_is_a_page_and_a_section_of_the_documentation(alert):
    url = alert["annotations"]["runbook_url"]
    assert url.startswith(DOCS)
    page, _, anchor = url.removeprefix(DOCS).partition("#")
    text = (REPOSITORY / "docs" / page.replace(".html", ".md")).read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    assert not anchor or anchor in {heading.lower() for heading in headings}


def test_each_component_has_both_alerts_and_leads_to_its_own_runbook():
    for component in get_args(Component):
        for severity in ("page", "ticket"):
            alert = ALERTS[alert_name(component), severity]
            assert alert["annotations"]["runbook_url"] == f"{DOCS}runbooks/{component}.html"


def test_who_is_paged_is_paged_for_what_leaves_the_fleet_slow_or_unwatched():
    paging = {name for name, severity in ALERTS if severity == "page"}
    incidents = {alert_name(component) for component in get_args(Component)}
    assert paging - incidents == {
        "KatExportFailing",
        "KatFleetMetricsAbsent",
        "KatLogNearlyFull",
        "KatLostGpuTime",
        "KatProcessorAbsent",
    }


# --- chart ---------------------------------------------------------------------------------


def test_the_chart_makes_a_prometheus_rule_of_each_file():
    example = (REPOSITORY / "helm/kat-otel/examples/load-balanced.yaml").read_text()
    found = [text for text in example.split("\n---\n") if "\nkind: PrometheusRule\n" in text]
    specs = [yaml.safe_load(text)["spec"] for text in found]
    assert sorted(specs, key=str) == sorted(
        (yaml.safe_load(file.read_text()) for file in FILES), key=str
    )
