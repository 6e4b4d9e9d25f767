"""A checked answer becomes a diagnosis: its sentences get the facts, its aliases the names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kat_otel.analyzer.answer_schema import LEVELS, Answer, Link, Rival
from kat_otel.analyzer.diagnose import action_text, hypothesis, who
from kat_otel.analyzer.diagnosis import Claim, Diagnosis, Hypothesis, Told
from kat_otel.analyzer.facts import Fact
from kat_otel.analyzer.knowledge import UNEXPLAINED, Cause, Knowledge
from kat_otel.analyzer.pack import Pack
from kat_otel.analyzer.weigh import Weighed, confidence, possible
from kat_otel.verdict import Incident

__all__ = ["composed"]

_ACTIONS: Final = 8


def composed(answer: Answer, incident: Incident, pack: Pack, known: Knowledge) -> Diagnosis:
    """Returns the diagnosis that a checked answer amounts to.

    Every number in it is the facts' or the detector's. A model can lower the confidence that the
    detector's probabilities allow, never raise it, and cannot hide a fact that the knowledge holds
    against its cause.

    Args:
        answer: that :func:`kat_otel.analyzer.check.check` found nothing wrong with.
        incident: that the pack was made of.
        pack: that the model read.
        known: causes and actions.
    """
    cause = pack.cause(answer.root_cause) or known.usual("unknown")
    named = _weighed(incident, cause, known)
    certainty = 0.0 if answer.abstained else confidence(incident, named) * LEVELS[answer.confidence]
    said = f" — {pack.names.restored(answer.summary)}" if answer.summary.strip() else ""
    actions = [pack.action(name) for name in answer.actions] or list(cause.actions)
    return Diagnosis(
        summary=f"{who(incident)}: {cause.title}{said}",
        root_cause=cause.id,
        component=cause.component,
        culprit_ranks=sorted(set(answer.culprit_ranks)),
        causal_chain=[_claim(link, first, cause, pack) for first, link in _first(answer)],
        actions=[action_text(action, incident.culprit) for action in actions[:_ACTIONS]],
        references=list(cause.references),
        confidence=certainty,
        abstained=answer.abstained,
        hypotheses=_hypotheses(answer, incident, named, pack, known),
        mode="model",
        knowledge=known.version,
        context=_context(answer, pack),
    )


def _first(answer: Answer) -> list[tuple[bool, Link]]:
    """Returns the links of the chain, and which of them is the first."""
    told: list[Link] = []
    for link in answer.causal_chain:
        if link not in told:  # small models say the same again
            told.append(link)
    return [(number == 0, link) for number, link in enumerate(told)]


def _claim(link: Link, first: bool, cause: Cause, pack: Pack) -> Claim:
    cited = _facts(link.evidence_ids, pack)
    facts = "; ".join(pack.names.restored(fact.text) for fact in cited)
    sentence = pack.names.restored(link.claim).strip().rstrip(".:")
    if not sentence and first and cause.id != UNEXPLAINED:
        sentence = cause.says
    return Claim(
        claim=f"{sentence}: {facts}" if sentence else facts,
        evidence_ids=[fact.source or fact.id for fact in cited],
    )


def _facts(ids: Sequence[str], pack: Pack) -> list[Fact]:
    return [fact for name in dict.fromkeys(ids) if (fact := pack.fact(name)) is not None]


def _weighed(incident: Incident, cause: Cause, known: Knowledge) -> Weighed:
    found = possible(incident, cause.component, known)
    return next((one for one in found if one.cause.id == cause.id), Weighed(cause, [], [], []))


def _hypotheses(
    answer: Answer, incident: Incident, named: Weighed, pack: Pack, known: Knowledge
) -> list[Hypothesis]:
    """Returns the causes that were weighed, the one that is named first."""
    rivals = {rival.root_cause: rival for rival in answer.hypotheses}
    first = rivals.pop(named.cause.id, None)
    out: list[Hypothesis] = []
    if named.cause.id != UNEXPLAINED:
        cited = [name for link in answer.causal_chain[:1] for name in link.evidence_ids]
        held = Rival(
            root_cause=named.cause.id,
            evidence_for=list(dict.fromkeys([*cited, *(first.evidence_for if first else ())])),
            evidence_against=first.evidence_against if first else [],
        )
        out.append(_told(held, hypothesis(incident, named), pack))
    for name, rival in rivals.items():
        cause = pack.cause(name)
        if cause is not None and name != UNEXPLAINED:
            out.append(_told(rival, hypothesis(incident, _weighed(incident, cause, known)), pack))
    return out


def _told(rival: Rival, weighed: Hypothesis, pack: Pack) -> Hypothesis:
    """Returns what the model holds for and against a cause, and what the knowledge adds."""
    return Hypothesis(
        root_cause=weighed.root_cause,
        component=weighed.component,
        probability=weighed.probability,
        evidence_for=_sources(rival.evidence_for, pack) or weighed.evidence_for,
        evidence_against=list(
            dict.fromkeys([*_sources(rival.evidence_against, pack), *weighed.evidence_against])
        ),
    )


def _sources(ids: Sequence[str], pack: Pack) -> list[str]:
    return [fact.source or fact.id for fact in _facts(ids, pack)]


def _context(answer: Answer, pack: Pack) -> list[Told]:
    """Returns the facts cited that the incident's own evidence does not have."""
    ids = [name for link in answer.causal_chain for name in link.evidence_ids]
    ids += [
        i for rival in answer.hypotheses for i in (*rival.evidence_for, *rival.evidence_against)
    ]
    return [
        Told(id=fact.id, text=pack.names.restored(fact.text))
        for fact in _facts(ids, pack)
        if not fact.source
    ]
