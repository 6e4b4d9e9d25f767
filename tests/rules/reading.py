"""The committed rules, read as Prometheus reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "collector-config" / "prometheus" / "rules"
FILES = (FOLDER / "kat-recording.yaml", FOLDER / "kat-alerts.yaml")

_ASKED = re.compile(r'printf ("(?:[^"\\]|\\.)*")[^|}]*\| query')


GROUPS: list[dict[str, Any]] = [
    group for file in FILES for group in yaml.safe_load(file.read_text())["groups"]
]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
RECORDS = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
ALERTS = {(rule["alert"], rule["labels"]["severity"]): rule for rule in RULES if "alert" in rule}


def asked_in_texts(alert: dict[str, Any]) -> Iterator[str]:
    """Yields the PromQL that the templates of an alert ask, each gap filled."""
    for text in alert["annotations"].values():
        for literal in _ASKED.findall(text):
            yield yaml.safe_load(literal).replace("%q", '"x"')
