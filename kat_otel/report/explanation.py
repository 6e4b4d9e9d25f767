"""A diagnosis in full for a terminal: who says it, its facts, what else was weighed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from kat_otel.analyzer import Claim, Diagnosis
from kat_otel.report.sentences import by_impact, culprit_sentence, first_line, printable
from kat_otel.verdict import Incident, Report

__all__ = ["explanation_text", "mode_text", "render_explanation"]

_WIDTH = 120


def mode_text(diagnosis: Mapping[str, Any]) -> str:
    """Returns who made a diagnosis: ``by model NAME, prompt 1``, or ``by rules, knowledge 1``."""
    mode, model = str(diagnosis.get("mode") or ""), str(diagnosis.get("model") or "")
    if mode == "model":
        return f"by model {model}, prompt {diagnosis.get('prompt', '')}"
    if mode != "rules":
        return f"by {mode.replace('_', ' ')}" if mode else ""
    said = f"by rules, knowledge {diagnosis.get('knowledge', '')}"
    rejected = diagnosis.get("rejected")
    if model and isinstance(rejected, list):
        reasons = ", ".join(str(reason).replace("_", " ") for reason in rejected)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        said += f"; model {model} was not taken: {reasons}"
    return said


def render_explanation(report: Report, most: int) -> str:
    """Returns the explanations of the costliest incidents of a report, at most ``most``."""
    incidents = by_impact(report)
    if report.abstained is not None or not incidents:
        return first_line(report) + "\n"
    parts = [
        f"{number}. {culprit_sentence(incident, report.source.ranks)}\n{explanation_text(incident)}"
        for number, incident in enumerate(incidents[:most], start=1)
    ]
    left = len(incidents) - most
    if left > 0:
        parts.append(f"and {left} smaller incident{'' if left == 1 else 's'} (--incidents)\n")
    return "\n".join(parts)


def explanation_text(incident: Incident) -> str:
    """Returns the diagnosis of an incident in full, without colours."""
    try:
        said = msgspec.convert(incident.diagnosis, Diagnosis)
    except msgspec.ValidationError:
        return "   no diagnosis\n"
    return "".join(_folded(line) for line in _lines(said, incident))


def _lines(said: Diagnosis, incident: Incident) -> Iterator[str]:
    yield f"   {said.summary}"
    sure = "abstained" if said.abstained else f"confidence {said.confidence:.2g}"
    yield f"   {said.root_cause}, {said.component}, {sure} — {mode_text(msgspec.to_builtins(said))}"
    if said.causal_chain:
        yield "   Why:"
        yield from (f"   - {_cited(claim)}" for claim in said.causal_chain)
    own = {fact.id for fact in incident.evidence}
    yield from (f"   - {told.id}: {told.text}" for told in said.context if told.id not in own)
    others = [one for one in said.hypotheses if one.root_cause != said.root_cause]
    if others:
        yield "   Also weighed:"
    for one in others:
        against = f"; against it {', '.join(one.evidence_against)}" if one.evidence_against else ""
        speaks = f"for it {', '.join(one.evidence_for)}" if one.evidence_for else "nothing for it"
        yield f"   - {one.root_cause} ({one.component} {one.probability:.2g}): {speaks}{against}"
    yield "   Next:"
    yield from (f"   - {action}" for action in said.actions)
    yield from (f"   - see {link}" for link in said.references)


def _cited(claim: Claim) -> str:
    return f"{claim.claim} [{', '.join(claim.evidence_ids)}]"


def _folded(line: str) -> str:
    text = printable(line)
    indent = "     " if text.startswith("   - ") else "   "
    return (
        "\n".join(
            textwrap.wrap(
                text,
                _WIDTH,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
                drop_whitespace=True,
            )
        )
        + "\n"
    )
