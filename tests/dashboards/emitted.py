"""What is really emitted: series and labels as Prometheus sees them.

What the processor finds out about the fleet stands in docs/metrics.md, whose table
``tests/processor/test_measure.py`` holds to what leaves.
"""

from __future__ import annotations

import re
from pathlib import Path

from kat_otel.dashboards.engines import ENGINE_HISTOGRAMS
from kat_otel.processor.prometheus import METRICS

SCRAPED = frozenset({"job", "instance"})
"""Labels that Prometheus adds to whatever it scrapes."""

_PROCESS = (
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_start_time_seconds",
)
"""Of the Prometheus client, whose collector the processor's registry has beside its own."""

_PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
_ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \| (.*?) \|", re.MULTILINE)


def emitted() -> dict[str, frozenset[str]]:
    """Returns the labels of every series."""
    found: dict[str, frozenset[str]] = dict.fromkeys(_PROCESS, frozenset())
    for metric in METRICS:
        found |= _series(metric.name, metric.kind, metric.labels)
    _, _, fleet = _PAGE.read_text().partition("## What it finds out about the fleet")
    for name, kind, labels in _ROW.findall(fleet):
        series = _series(name, kind, re.findall(r"`(\w+)`", labels))
        # Both have a counter of spans: what one says with its labels the other may not.
        found = {
            key: found.get(key, frozenset()) | series.get(key, frozenset())
            for key in found | series
        }
    for name, labels in ENGINE_HISTOGRAMS.items():
        found |= _series(name, "histogram", labels)
    return {name: labels | SCRAPED for name, labels in found.items()}


def _series(name: str, kind: str, labels: tuple[str, ...] | list[str]) -> dict[str, frozenset[str]]:
    if kind != "histogram":
        return {name: frozenset(labels)}
    return {
        f"{name}_bucket": frozenset({*labels, "le"}),
        f"{name}_sum": frozenset(labels),
        f"{name}_count": frozenset(labels),
    }
