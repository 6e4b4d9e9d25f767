"""An incident in, its diagnosis out: the same for the same incident, without asking anybody.

Sentences are the knowledge's, which hold no number, or texts of facts word for word: so whatever
number is read stands in the evidence that the claim cites.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from kat_otel.analyzer.diagnosis import Claim, Diagnosis, Hypothesis
from kat_otel.analyzer.knowledge import UNEXPLAINED, Knowledge, embedded
from kat_otel.analyzer.weigh import Weighed, components, confidence, likeliest, undecided
from kat_otel.verdict import Culprit, Incident, Report
from kat_otel.wording import ranks_text

__all__ = ["action_text", "diagnose", "hypothesis", "who", "with_diagnoses"]

_EFFECTS: Final = ("arrival_excess", "begin", "wait")
"""Signals that say what came of it, in the order in which it happens."""
_HYPOTHESES: Final = 4
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
"""Names that may stand in a command that somebody pastes; others are left for them to fill in."""


def with_diagnoses(report: Report) -> Report:
    """Fills the diagnosis of every incident of a report, and returns the report."""
    for incident in report.incidents:
        incident.diagnosis = msgspec.to_builtins(diagnose(incident))
    return report


def diagnose(incident: Incident, knowledge: Knowledge | None = None) -> Diagnosis:
    """Returns why an incident happens, and what to do.

    Args:
        incident: as the detector and the hardware's readings tell it.
        knowledge: what is known of causes; the package's own if None.
    """
    known = knowledge or embedded()
    weighed = [likeliest(incident, c, known) for c in components(incident)[:_HYPOTHESES]]
    found = weighed[0]
    doubt = _doubt(incident, found)
    cause = known.usual("unknown") if doubt else found.cause
    return Diagnosis(
        summary=f"{who(incident)}: {cause.title}" + (f" ({doubt})" if doubt else ""),
        root_cause=cause.id,
        component="unknown" if doubt else incident.component,
        culprit_ranks=list(incident.culprit.ranks) if incident.culprit.sure else [],
        causal_chain=_chain(incident, None if doubt else found),
        actions=[action_text(action, incident.culprit) for action in cause.actions],
        references=list(cause.references),
        confidence=0.0 if doubt else confidence(incident, found),
        abstained=bool(doubt),
        hypotheses=[hypothesis(incident, one) for one in weighed if one.cause.id != UNEXPLAINED],
        mode="rules",
        knowledge=known.version,
    )


def action_text(action: str, culprit: Culprit | None) -> str:
    """Returns an action with the culprit's place in it, or in general words without one."""
    gpu = _name(culprit.devices if culprit else [])
    host = _name(culprit.hosts if culprit else [])
    places = {
        "{gpu}": f"GPU {gpu}" if gpu else "the named GPU",
        "{host}": host or "the named host",
        "{i}": f" -i {gpu}" if gpu else "",
    }
    for place, name in places.items():
        action = action.replace(place, name)
    return action


def who(incident: Incident) -> str:
    """Returns whom a diagnosis is about: the culprits, or what the incident is of."""
    return ranks_text(incident.culprit.ranks) if incident.culprit.ranks else incident.scope


def _name(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 and _SAFE.fullmatch(names[0]) else ""


def _doubt(incident: Incident, found: Weighed) -> str:
    """Says why no cause is named; empty if one is."""
    if said := undecided(incident):
        return said
    if not found.needed and not found.support:
        return "nothing that was measured speaks for a cause"
    return ""


def _chain(incident: Incident, found: Weighed | None) -> list[Claim]:
    """Returns cause, delay and waiting, as far as there are facts to cite."""
    claims: list[Claim] = []
    if found is not None:
        cited = [*found.needed, *found.support]
        said = "; ".join(fact.text for fact in cited)
        ids = [fact.id for fact in cited]
        claims.append(Claim(claim=f"{found.cause.says}: {said}", evidence_ids=ids))
    told = {one for claim in claims for one in claim.evidence_ids}
    for signal in _EFFECTS:
        claims += [
            Claim(claim=fact.text, evidence_ids=[fact.id])
            for fact in incident.evidence
            if fact.signal == signal and fact.id not in told
        ]
    return claims


def hypothesis(incident: Incident, one: Weighed) -> Hypothesis:
    """Returns a cause that was weighed, with what the detector gives its component."""
    component = one.cause.component
    given = {c.component: c.probability for c in incident.component_candidates}
    return Hypothesis(
        root_cause=one.cause.id,
        component=component,
        probability=given.get(component, incident.component_confidence),
        evidence_for=[fact.id for fact in (*one.needed, *one.support)],
        evidence_against=[fact.id for fact in one.against],
    )
