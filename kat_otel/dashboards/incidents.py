"""Incidents as the metrics tell them: which are at work, who is to blame, how they are shown.

In the metrics an incident is an instance, a kind, a component and a culprit rank (a series for each
of the first eight, ``-1`` where the side is unknown), and the time that it costs each step.
"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.table import Panel as Table

from kat_otel.dashboards import names
from kat_otel.dashboards.board import Annotation
from kat_otel.dashboards.links import cell, to_incident, to_instance
from kat_otel.dashboards.panels import ALARM, Column, now, rows, sorted_by
from kat_otel.dashboards.promql import equals, selected
from kat_otel.report.advice import KIND_MEANING

__all__ = [
    "KINDS",
    "PAGE_WORDS",
    "RANK_WORDS",
    "active_now",
    "causes",
    "incidents_marked",
    "paging_causes",
]

KINDS: Final = "; ".join(
    f"{kind}: {word[0].lower()}{word[1:-1]}" for kind, word in KIND_MEANING.items()
)
"""What the kinds mean, in a line for descriptions."""

PAGE_WORDS: Final = {"true": ("PAGE", ALARM), "false": ("seen", "text")}
RANK_WORDS: Final = {"-1": ("side unknown", "text")}

_CAUSE: Final = f"{names.INSTANCE}, {names.KIND}, {names.COMPONENT}"


def causes(*matchers: str) -> str:
    """PromQL: a series for each cause at work, whatever number of ranks is to blame."""
    return f"max by ({_CAUSE}) ({selected(names.IMPACT, *matchers)}) > 0"


def paging_causes(*matchers: str) -> str:
    """PromQL: as :func:`causes`, of those that page."""
    return causes(*matchers, equals(names.PAGE, "true"))


def incidents_marked(*matchers: str) -> Annotation:
    """Shades the times in which a cause pages, on every panel with a time axis."""
    return Annotation(
        "Pages",
        f"count by ({_CAUSE}, {names.RANK}) "
        f"({selected(names.IMPACT, *matchers, equals(names.PAGE, 'true'))} > 0)",
        f"{{{{{names.INSTANCE}}}}}: rank {{{{{names.RANK}}}}} makes the others wait",
        f"{{{{{names.KIND}}}}}, {{{{{names.COMPONENT}}}}}",
        ALARM,
    )


def active_now(*matchers: str, of_all_instances: bool) -> Table:
    """Who makes whom wait now, a row for each culprit rank, what costs most first."""
    where = (
        [Column(names.INSTANCE, "Instance", links=[to_instance(cell("Instance"))])]
        if of_all_instances
        else []
    )
    by = f"{_CAUSE}, {names.PAGE}, {names.RANK}"
    which = [cell("Instance"), cell("Kind"), cell("Component"), cell("Rank")]
    if not of_all_instances:
        which[0] = "${instance}"
    return (
        rows(
            "Who makes the others wait, now",
            "Incidents that are not resolved. PAGE: it costs enough and has lasted; seen: a "
            "finding below that, or silenced. A click on the kind leads to the evidence, the "
            f"diagnosis and the trace. Kinds: {KINDS}.",
            [now(f"topk(10, sum by ({by}) ({selected(names.IMPACT, *matchers)}) > 0)")],
            [
                Column(names.PAGE, "State", width=70, words=PAGE_WORDS),
                *where,
                Column(names.RANK, "Rank", width=110, words=RANK_WORDS),
                Column(names.KIND, "Kind", links=[to_incident(*which)]),
                Column(names.COMPONENT, "Component"),
                Column("Value", "Costs each step", unit="s", width=130),
            ],
        )
        .sort_by([sorted_by("Costs each step")])
        .no_value("Nobody makes the others wait.")
    )
