"""The analyzer's diagnosis as the page shows it: whatever its object lacks is left out.

It comes from a language model or the knowledge base, through JSON: nothing of its form is taken for
granted, and a claim may only point to evidence that stands on the page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from kat_otel.report.explanation import mode_text
from kat_otel.wording import ranks_text

__all__ = ["diagnosis_view"]

_MAX_CLAIMS = 12
_MAX_ACTIONS = 8


def diagnosis_view(
    diagnosis: Mapping[str, Any] | None, evidence: Collection[str]
) -> dict[str, Any] | None:
    """Returns the template's variables for a diagnosis, None if it says nothing.

    Args:
        diagnosis: the incident's, of any form.
        evidence: ids of the evidence lines on the page; others are named, but not linked.
    """
    if not diagnosis:
        return None
    abstained = diagnosis.get("abstained")
    view: dict[str, Any] = {
        "summary": _text(diagnosis.get("summary")),
        "cause": _text(diagnosis.get("root_cause")).replace("_", " "),
        "component": _text(diagnosis.get("component")),
        "ranks": _ranks(diagnosis.get("culprit_ranks")),
        "confidence": _confidence(diagnosis.get("confidence")),
        "mode": mode_text(diagnosis).removeprefix("by "),
        "abstained": bool(abstained),
        "why_abstained": _why_abstained(abstained, diagnosis.get("summary")),
        "chain": _chain(diagnosis.get("causal_chain"), evidence),
        "context": _context(diagnosis.get("context")),
        "actions": [text for text in map(_text, _list(diagnosis.get("actions"))) if text][
            :_MAX_ACTIONS
        ],
    }
    said = ("summary", "cause", "chain", "actions", "abstained")
    return view if any(view[key] for key in said) else None


def _why_abstained(abstained: object, summary: object) -> str:
    """Returns the reason if it was said apart from the summary, or that there is none."""
    if not abstained or _text(summary):
        return _text(abstained)
    return _text(abstained) or "No diagnosis was given."


def _chain(claims: object, evidence: Collection[str]) -> list[dict[str, Any]]:
    chain: list[dict[str, Any]] = []
    for claim in _list(claims)[:_MAX_CLAIMS]:
        if not isinstance(claim, Mapping):
            continue
        found = cast(Mapping[str, object], claim)
        text = _text(found.get("claim"))
        ids = [i for i in map(_text, _list(found.get("evidence_ids"))) if i]
        if text:
            chain.append(
                {
                    "claim": text,
                    "evidence": [{"id": i, "linked": i in evidence} for i in ids],
                }
            )
    return chain


def _context(facts: object) -> list[dict[str, str]]:
    """Returns what a model cites beside the incident's evidence."""
    told: list[dict[str, str]] = []
    for fact in _list(facts)[:_MAX_CLAIMS]:
        if isinstance(fact, Mapping):
            found = cast(Mapping[str, object], fact)
            told.append({"id": _text(found.get("id")), "text": _text(found.get("text"))})
    return [one for one in told if one["id"] and one["text"]]


def _ranks(value: object) -> str:
    ranks = [rank for rank in _list(value) if isinstance(rank, int) and not isinstance(rank, bool)]
    return ranks_text(ranks) if ranks else ""


def _confidence(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return f"{100 * value:.0f} %"
    return _text(value)


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _list(value: object) -> list[object]:
    return cast(list[object], value) if isinstance(value, list) else []
