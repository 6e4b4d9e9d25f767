"""The committed dashboards, read as Grafana reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[2] / "collector-config" / "grafana" / "dashboards"
DASHBOARDS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))
}

_LEGEND = re.compile(r"\{\{(\w+)\}\}")
_LABEL_VALUES = re.compile(r"label_values\((?P<series>.*), (?P<label>\w+)\)")


class Query(NamedTuple):
    """What one target of a panel, one annotation or one variable asks Prometheus."""

    where: str
    """Dashboard, panel and name of the query."""
    expression: str
    over_time: bool
    """Asked for a range of time, else for its end."""
    shown: frozenset[str] = frozenset()
    """Labels that the panel shows of the result: in legends, texts, and columns of a table."""
    exemplars: bool = False


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the panels that show something."""
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def prometheus_queries(name: str) -> Iterator[Query]:
    """Yields what a dashboard's panels and annotations ask Prometheus."""
    for panel in panels(DASHBOARDS[name]):
        for target in panel.get("targets", []):
            if target["datasource"]["type"] == "prometheus":
                yield Query(
                    f"{name} / {panel['title']} / {target['refId']}",
                    target["expr"],
                    bool(target.get("range")),
                    _shown(panel, target),
                    bool(target.get("exemplar")),
                )
    for annotation in DASHBOARDS[name]["annotations"]["list"]:
        where = f"{name} / annotation {annotation['name']}"
        words = annotation["titleFormat"] + annotation["textFormat"]
        shown = frozenset(_LEGEND.findall(words))
        yield Query(where, annotation["expr"], over_time=True, shown=shown)


def jaeger_queries(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what a dashboard's panels ask Jaeger, and where."""
    for panel in panels(DASHBOARDS[name]):
        for target in panel.get("targets", []):
            if target["datasource"]["type"] == "jaeger":
                yield f"{name} / {panel['title']}", target


def variables(name: str) -> dict[str, dict[str, Any]]:
    """Returns a dashboard's variables by name, in their order."""
    return {one["name"]: one for one in DASHBOARDS[name]["templating"]["list"]}


def label_values(variable: dict[str, Any]) -> tuple[str, str]:
    """Returns series and label of a variable that takes the values of a label."""
    found = _LABEL_VALUES.fullmatch(variable["query"])
    assert found, variable["query"]
    return found["series"], found["label"]


def filled(text: str, values: Mapping[str, str]) -> str:
    """Returns a text with its variables replaced, as Grafana does before it asks.

    Raises:
        KeyError: it names a variable that is not there.
    """
    return re.sub(r"\$\{(\w+)\}|\$([A-Za-z_]\w*)", lambda found: values[found[1] or found[2]], text)


def _shown(panel: dict[str, Any], target: dict[str, Any]) -> frozenset[str]:
    if panel["type"] != "table":
        return frozenset(_LEGEND.findall(target["legendFormat"]))
    (columns,) = (
        step["options"]["include"]["names"]
        for step in panel["transformations"]
        if step["id"] == "filterFieldsByName"
    )
    return frozenset(name for name in columns if not name.startswith("Value"))
