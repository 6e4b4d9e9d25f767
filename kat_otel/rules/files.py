"""The rules as files, as Prometheus' ``rule_files`` and the chart's PrometheusRule take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kat_otel.rules import budget, incidents, processor, records
from kat_otel.rules.rule import Group, file_text

__all__ = ["alert_groups", "files"]

_MADE = (
    "Made by `kat rules`: what is changed by hand goes with its next run, so add a file beside it."
)


def alert_groups(share: float = budget.BUDGET) -> Sequence[Group]:
    """Returns all groups of alerts.

    Args:
        share: of an instance's GPU time that may be lost.
    """
    return [incidents.group(), budget.group(share), *processor.groups()]


def files(share: float = budget.BUDGET) -> Mapping[str, str]:
    """Returns the text of each file by its name; the alerts need what the other file records."""
    return {
        "kat-recording.yaml": file_text(_MADE, records.groups()),
        "kat-alerts.yaml": file_text(
            f"{_MADE}\nNeeds kat-recording.yaml beside it.", alert_groups(share)
        ),
    }
