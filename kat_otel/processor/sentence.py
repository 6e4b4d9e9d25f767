"""One line that says what an incident is: the log body, the root's summary, the error status."""

from __future__ import annotations

from kat_otel.verdict import Incident
from kat_otel.wording import ranks_text

__all__ = ["summary_of"]


def summary_of(incident: Incident) -> str:
    """Returns the incident in one sentence: who, what, cost, component."""
    who = ranks_text(incident.culprit.ranks) if incident.culprit.ranks else "side unknown"
    if incident.culprit.hosts:
        who += f" on {', '.join(incident.culprit.hosts)}"
    unsure = "" if incident.culprit.sure else " (not sure which side)"
    cost = incident.impact_ns / 1e6
    text = f"{who}{unsure}: {incident.kind.replace('_', ' ')}, costs {cost:,.3g} ms per step"
    if incident.component != "unknown":
        text += f", likely {incident.component} ({incident.component_confidence:.0%})"
    if incident.victims:
        text += f"; waiting: {ranks_text(incident.victims)}"
    return f"{text} [{incident.status}]"
