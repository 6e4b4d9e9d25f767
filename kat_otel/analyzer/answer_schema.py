"""What a model may answer: a schema made for each request, in which only what exists can be said.

The order of the properties is the order in which a model writes them: names and ids first,
sentences last, as then the sentences follow from the choice and not the choice from the sentences.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from kat_otel.analyzer.knowledge import UNEXPLAINED
from kat_otel.analyzer.pack import Pack

__all__ = ["LEVELS", "Answer", "Level", "Link", "Rival", "answer_schema"]

Level = Literal["low", "medium", "high"]
LEVELS: Final[dict[Level, float]] = {"low": 0.3, "medium": 0.6, "high": 1.0}
"""What a model's own certainty leaves of the detector's confidence: chosen, not measured."""

_CLAIM: Final = 240
_SUMMARY: Final = 400
_LINKS: Final = 4
_IDS: Final = 4
_RIVALS: Final = 2
_ACTIONS: Final = 3

_Ids = Annotated[list[str], msgspec.Meta(max_length=_IDS)]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One link of the causal chain, from the cause towards the latency."""

    evidence_ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=_IDS)]
    claim: Annotated[str, msgspec.Meta(max_length=_CLAIM)] = ""


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """A cause that was weighed, too."""

    root_cause: str
    evidence_for: _Ids = []
    evidence_against: _Ids = []


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer by its form alone: whether what it names exists is checked in ``check.py``."""

    root_cause: str
    component: str
    culprit_ranks: Annotated[list[int], msgspec.Meta(max_length=1_000)]
    causal_chain: Annotated[list[Link], msgspec.Meta(max_length=_LINKS)]
    hypotheses: Annotated[list[Rival], msgspec.Meta(max_length=_RIVALS)] = []
    actions: Annotated[list[str], msgspec.Meta(max_length=_ACTIONS)] = []
    confidence: Level
    abstained: bool
    summary: Annotated[str, msgspec.Meta(max_length=_SUMMARY)] = ""


def answer_schema(pack: Pack, *, prose: bool = True) -> dict[str, Any]:
    """Returns the JSON Schema of an answer to a pack.

    Args:
        pack: what can be cited and named.
        prose: whether sentences are asked for; without them all text is composed of facts and
            knowledge, which suits small models.
    """
    ids = _of([fact.id for fact in pack.facts], most=_IDS)
    causes = [cause.id for cause in pack.causes]
    others = [name for name in causes if name != UNEXPLAINED] or causes
    link: dict[str, Any] = {"evidence_ids": {**ids, "minItems": 1}}
    if prose:
        link["claim"] = {"type": "string", "maxLength": _CLAIM}
    rival = {
        "root_cause": {"type": "string", "enum": others},
        "evidence_for": ids,
        "evidence_against": ids,
    }
    chain = {"type": "array", "items": _object(link), "maxItems": _LINKS}
    answer: dict[str, Any] = {
        "root_cause": {"type": "string", "enum": causes},
        "component": {
            "type": "string",
            "enum": list(dict.fromkeys(cause.component for cause in pack.causes)),
        },
        "culprit_ranks": _ranks(pack),
        "causal_chain": chain,
        "hypotheses": {"type": "array", "items": _object(rival), "maxItems": _RIVALS},
        "actions": _of(list(pack.actions), most=_ACTIONS),
        "confidence": {"type": "string", "enum": list(LEVELS)},
        "abstained": {"type": "boolean"},
    }
    if prose:
        answer["summary"] = {"type": "string", "maxLength": _SUMMARY}
    return _object(answer)


def _ranks(pack: Pack) -> dict[str, Any]:
    if not pack.ranks:
        return {"type": "array", "items": {"type": "integer"}, "maxItems": 0}
    items = {"type": "integer", "enum": list(pack.ranks)}
    return {"type": "array", "items": items, "maxItems": len(pack.ranks)}


def _of(names: list[str], *, most: int) -> dict[str, Any]:
    items = {"type": "string", "enum": names}
    return {"type": "array", "items": items, "maxItems": min(most, len(names))}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
