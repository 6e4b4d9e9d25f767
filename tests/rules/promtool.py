"""Unit tests of alerts, run by promtool: series in, alerts with their texts out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rules.reading import ALERTS, GROUPS

Series = Mapping[str, str]
"""Values by series, in promtool's notation: ``0+1x9`` are ten values that grow by one."""


@dataclass(frozen=True)
class Case:
    """An alert, what makes it fire, and healthy neighbours in which it must be quiet.

    Attributes:
        alert: its name.
        severity: of its rules that have this name.
        fires: series at which it fires, one alert.
        quiet: what differs in neighbouring cases, in which it does not; an empty value takes a
            series away.
        at: when it is looked at.
        labels: of the alert, beside its name and severity.
        summary: as it reads.
        description: as it reads; None where it is no template.
        every: how often rules are evaluated; coarse where a test lasts for days.
    """

    alert: str
    severity: str
    fires: Series
    quiet: Sequence[Series]
    at: str
    summary: str
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    every: str = "1m"

    def expected(self) -> dict[str, Any]:
        """Returns the alert as promtool is to see it."""
        written = ALERTS[self.alert, self.severity]["annotations"]
        description = written["description"] if self.description is None else self.description
        assert "{{" not in description, "say how it reads"
        return {
            "exp_labels": {"severity": self.severity, **self.labels},
            "exp_annotations": {
                "summary": self.summary,
                "description": description,
                "runbook_url": written["runbook_url"],
            },
        }


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs promtool, whatever it says."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool not found: apt-get install --no-install-recommends prometheus")
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def fires(case: Case, folder: Path) -> None:
    """Holds an alert to its case: fires with its text."""
    _run(case, [case.fires], [case.expected()], folder)


def is_quiet(case: Case, folder: Path) -> None:
    """Holds an alert to the neighbouring healthy cases."""
    assert case.quiet, "name what differs"
    neighbours = [{**case.fires, **differs} for differs in case.quiet]
    _run(case, [{s: v for s, v in one.items() if v} for one in neighbours], [], folder)


def _run(case: Case, worlds: Sequence[Series], alerts: list[dict[str, Any]], folder: Path) -> None:
    """Asks for the alerts of one severity: those of the same name but another are not its case."""
    alone = [
        {**group, "rules": kept}
        for group in GROUPS
        if (kept := [rule for rule in group["rules"] if _belongs(rule, case)])
    ]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": alone}))
    test = {
        "rule_files": [str(folder / "rules.yaml")],
        "evaluation_interval": case.every,
        "tests": [
            {
                "interval": case.every,
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "alert_rule_test": [
                    {"alertname": case.alert, "eval_time": case.at, "exp_alerts": alerts}
                ],
            }
            for series in worlds
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", folder / "test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def _belongs(rule: Mapping[str, Any], case: Case) -> bool:
    """Whether a rule is recorded, or the case's own: the others would only cost time."""
    if "record" in rule:
        return True
    return (rule["alert"], rule["labels"]["severity"]) == (case.alert, case.severity)
