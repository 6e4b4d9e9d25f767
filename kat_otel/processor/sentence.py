"""One line that says what an incident is: the log body, the root's summary, the error status."""

from __future__ import annotations

from kat_otel.verdict import Incident

__all__ = ["summary_of"]


def summary_of(incident: Incident) -> str:
    """Returns the incident in one sentence: who, what, cost, component."""
    who = _ranks(incident.culprit.ranks) or "side unknown"
    if incident.culprit.hosts:
        who += f" on {', '.join(incident.culprit.hosts)}"
    unsure = "" if incident.culprit.sure else " (not sure which side)"
    cost = incident.impact_ns / 1e6
    text = f"{who}{unsure}: {incident.kind.replace('_', ' ')}, costs {cost:,.3g} ms per step"
    if incident.component != "unknown":
        text += f", likely {incident.component} ({incident.component_confidence:.0%})"
    if incident.victims:
        text += f"; waiting: {_ranks(incident.victims)}"
    return f"{text} [{incident.status}]"


def _ranks(ranks: list[int]) -> str:
    if not ranks:
        return ""
    shown = ", ".join(str(rank) for rank in ranks[:8])
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}{more}"
