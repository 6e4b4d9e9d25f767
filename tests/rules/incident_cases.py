"""Unit tests of the alerts on incidents, the same for each component."""

from __future__ import annotations

from typing import get_args

from kat_otel.report.advice import usual_step
from kat_otel.rules.incidents import alert_name
from kat_otel.verdict import Component
from tests.rules.promtool import Case
from tests.rules.reading import ALERTS


def impact(
    component: str, rank: int, *, page: bool = False, kind: str = "stall", silenced: bool = False
) -> str:
    """The series of an incident's cost per step."""
    said = {
        "kat_instance_id": "llama",
        "kat_kind": kind,
        "kat_component": component,
        "kat_rank": rank,
        "kat_page": str(page).lower(),
        "kat_silenced": str(silenced).lower(),
    }
    labels = ", ".join(f'{label}="{value}"' for label, value in said.items())
    return f"kat_incident_impact_seconds{{{labels}}}"


def _info(rank: int, host: str, gpu: str) -> str:
    return (
        f'kat_rank_info{{kat_instance_id="llama", kat_rank="{rank}", host_name="{host}", '
        f'hw_id="{gpu}"}}'
    )


def _labels(component: str) -> dict[str, str]:
    return {"kat_instance_id": "llama", "kat_kind": "stall", "kat_component": component}


def _title(component: Component, severity: str) -> str:
    """What the knowledge says of the component; the rest of the text is spelt out below."""
    text = ALERTS[alert_name(component), severity]["annotations"]["description"]
    return text.partition(f". {component}: ")[2].partition(" Cost: ")[0]


def page(component: Component) -> Case:
    """Two ranks of one cause: one alert that names both, at once."""
    step = usual_step(component)
    silenced = impact(component, 5, silenced=True)
    return Case(
        alert_name(component),
        "page",
        fires={
            impact(component, 5, page=True): "0.0108x6",
            impact(component, 7, page=True): "0.0108x6",
            _info(5, "node-2", "GPU-5f"): "1x6",
            _info(7, "node-3", ""): "1x6",
            f'kat_gpu_lost_time_seconds_total{{kat_instance_id="llama", '
            f'kat_component="{component}"}}': "0+150x6",
        },
        quiet=[
            {
                impact(component, 5, page=True): "",
                impact(component, 7, page=True): "",
                silenced: "0.0108x6",
            },
            {impact(component, 5, page=True): "0x6", impact(component, 7, page=True): "0x6"},
        ],
        at="6m",
        labels=_labels(component),
        summary=f"llama waits 10.8ms a step: stall, {component}",
        description=(
            f"Where: rank 5 on node-2 (GPU-5f), rank 7 on node-3. {component}: "
            f"{_title(component, 'page')} "
            "Cost: every step is 10.8ms longer, and 2.50 GPUs do nothing but wait. "
            f"Do: {step} (the runbook says what else, and when to drain the node)"
        ),
    )


def ticket(component: Component) -> Case:
    """A finding below a page that has lasted for an hour, of which no side is sure."""
    quiet = impact(component, -1)
    return Case(
        alert_name(component),
        "ticket",
        fires={quiet: "0.0004x70"},
        quiet=[
            {quiet: "0.0004x50 stale"},
            {quiet: "", impact(component, -1, silenced=True): "0.0004x70"},
            {impact(component, 5, page=True): "0.0108x70"},
        ],
        at="61m",
        labels=_labels(component),
        summary=f"llama waits 400us a step: stall, {component}, for 1h and more",
        description=(
            f"Where: no side is sure. {component}: {_title(component, 'ticket')} "
            "Cost: every step is 400us longer. It is too little to page. "
            f"Do: {usual_step(component)} (or say that it is none: kat feedback, kat silence)"
        ),
    )


INCIDENT_CASES = [made(component) for component in get_args(Component) for made in (page, ticket)]
"""Two of each component."""
