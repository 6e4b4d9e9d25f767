"""Which causes come in question for an incident, and which facts speak for and against each."""

from __future__ import annotations

from typing import Final, NamedTuple

from kat_otel.analyzer.evidence import matching, silent
from kat_otel.analyzer.knowledge import Cause, Knowledge
from kat_otel.verdict import Component, Evidence, Incident

__all__ = ["DOUBT", "Weighed", "components", "confidence", "likeliest", "possible", "undecided"]

DOUBT: Final = 0.5
"""What facts against a cause leave of the confidence in it: chosen, not measured."""


class Weighed(NamedTuple):
    """A cause, and the facts of the incident that concern it."""

    cause: Cause
    needed: list[Evidence]
    support: list[Evidence]
    against: list[Evidence]


def components(incident: Incident) -> list[Component]:
    """Returns the components that the detector holds possible, its own choice first."""
    named: tuple[Component, ...] = (
        incident.component,
        *(candidate.component for candidate in incident.component_candidates),
    )
    return [one for at, one in enumerate(named) if one not in named[:at]]


def possible(incident: Incident, component: Component, known: Knowledge) -> list[Weighed]:
    """Returns the causes of a component whose needs are met, in the order of the file."""
    facts = incident.evidence
    found: list[Weighed] = []
    for cause in known.of(component, incident.kind):
        needed = matching(cause.needs, facts)
        if cause.needs and not needed:
            continue
        support = matching(cause.supports, facts)
        against = matching(cause.contradicts, facts)
        against += silent([*cause.needs, *cause.supports], facts)
        found.append(Weighed(cause, needed, support, against))
    return found


def likeliest(incident: Incident, component: Component, known: Knowledge) -> Weighed:
    """Returns the cause of a component that most facts speak for; the first of the file if even."""
    found = possible(incident, component, known)
    return max(found, key=_weight, default=Weighed(known.usual(component), [], [], []))


def confidence(incident: Incident, one: Weighed) -> float:
    """Returns how far a cause may be believed: never further than its component."""
    given = {c.component: c.probability for c in incident.component_candidates}
    given[incident.component] = incident.component_confidence
    most = min(given.get(one.cause.component, 0.0), one.cause.confidence)
    return most * DOUBT if one.against else most


def undecided(incident: Incident) -> str:
    """Says why an incident has no cause that could be named at all; empty if it may have one."""
    if not incident.culprit.sure:
        return "side unknown"
    if not incident.evidence:
        return "no evidence"
    if incident.component == "unknown":
        return "no component stands out"
    return ""


def _weight(one: Weighed) -> tuple[int, bool, int]:
    return len(one.needed), bool(one.cause.kinds), len(one.support) - len(one.against)
