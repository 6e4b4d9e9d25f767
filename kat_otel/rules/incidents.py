"""Alerts on what the processor finds: an incident of each component.

The processor has judged already what is worth waking somebody: ``kat_page`` is true after an
incident has lasted three steps and costs enough, and false again while an operator silences it. A
page therefore waits for nothing. What lasts and costs too little to page becomes a ticket.

An alert is a cause (instance, kind, component), however many ranks are to blame: who they are and
where they stand is asked for when its text is made, so that it stays one alert while they change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

from kat_otel.analyzer import embedded
from kat_otel.dashboards import names
from kat_otel.dashboards.promql import equals, selected
from kat_otel.report.advice import usual_step
from kat_otel.rules.rule import Alert, Group
from kat_otel.verdict import Component

__all__ = ["alert_name", "group"]

_CAUSE: Final = f"{names.INSTANCE}, {names.KIND}, {names.COMPONENT}"
_ID: Final = f"$labels.{names.INSTANCE}"
_LASTS: Final = "1h"


def group() -> Group:
    """Returns two alerts of each component: one that pages, one that opens a ticket."""
    return Group("kat-incidents", [alert for c in get_args(Component) for alert in _of(c)])


def alert_name(component: Component) -> str:
    """Returns ``KatIncidentGpuClock`` of ``gpu_clock``."""
    return "KatIncident" + "".join(word.capitalize() for word in component.split("_"))


def _of(component: Component) -> Iterator[Alert]:
    paging = _cause(component, equals(names.PAGE, "true"))
    quiet = _cause(component, equals(names.PAGE, "false"), equals(names.SILENCED, "false"))
    usual = embedded().usual(component).title
    step = usual_step(component)
    if "{{" in usual + step:
        raise ValueError(
            f"knowledge of {component}: {usual!r}, {step!r} would be read as a template by "
            "Prometheus: write it without {{"
        )
    waits = (
        f"{{{{ {_ID} }}}} waits {{{{ $value | humanizeDuration }}}} a step: "
        f"{{{{ $labels.{names.KIND} }}}}, {component}"
    )
    part = f"{component}: {usual}."
    yield Alert(
        alert_name(component),
        "page",
        f"an incident of {component} pages",
        paging,
        "",
        summary=waits,
        where=f"{_ranks(component, 'true')}. {part}",
        cost=_cost(component),
        action=f"{step} (the runbook says what else, and when to drain the node)",
        runbook=f"runbooks/{component}.html",
    )
    yield Alert(
        alert_name(component),
        "ticket",
        f"a finding of {component} lasts and does not page",
        f"{quiet} unless on ({_CAUSE}) {paging}",
        _LASTS,
        summary=f"{waits}, for {_LASTS} and more",
        where=f"{_ranks(component, 'false')}. {part}",
        cost=f"{_cost(component)} It is too little to page.",
        action=f"{step} (or say that it is none: kat feedback, kat silence)",
        runbook=f"runbooks/{component}.html",
    )


def _cause(component: Component, *matchers: str) -> str:
    impact = selected(names.IMPACT, equals(names.COMPONENT, component), *matchers)
    return f"max by ({_CAUSE}) ({impact}) > 0"


def _ranks(component: Component, page: str) -> str:
    """A template that names the culprits: ``rank 5 on node-2 (GPU-5f..)``, one after the other."""
    culprits = (
        f"max by ({names.RANK}) ({names.IMPACT}{{{names.INSTANCE}=%q, {names.KIND}=%q, "
        f'{names.COMPONENT}=\\"{component}\\", {names.PAGE}=\\"{page}\\"}}) > 0'
    )
    place = (
        f"max by ({names.HOST}, {names.GPU}) ({names.INFO}{{{names.INSTANCE}=%q, {names.RANK}=%q}})"
    )
    rank = f".Labels.{names.RANK}"
    return (
        f'{{{{ range $at, $one := printf "{culprits}" {_ID} $labels.{names.KIND} | query '
        f'| sortByLabel "{names.RANK}" }}}}{{{{ if $at }}}}, {{{{ end }}}}'
        f'{{{{ if eq {rank} "-1" }}}}no side is sure{{{{ else }}}}rank {{{{ {rank} }}}}'
        f'{{{{ range printf "{place}" {_ID} {rank} | query }}}}'
        f"{{{{ with .Labels.{names.HOST} }}}} on {{{{ . }}}}{{{{ end }}}}"
        f"{{{{ with .Labels.{names.GPU} }}}} ({{{{ . }}}}){{{{ end }}}}"
        f"{{{{ end }}}}{{{{ end }}}}{{{{ end }}}}"
    )


def _cost(component: Component) -> str:
    lost = (
        f'sum(rate({names.LOST}{{{names.INSTANCE}=%q, {names.COMPONENT}=\\"{component}\\"}}[5m]))'
    )
    return (
        f"every step is {{{{ $value | humanizeDuration }}}} longer"
        f'{{{{ with printf "{lost}" {_ID} | query }}}}, and {{{{ . | first | value '
        f'| printf "%.2f" }}}} GPUs do nothing but wait{{{{ end }}}}.'
    )
