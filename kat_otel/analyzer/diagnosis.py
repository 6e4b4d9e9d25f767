"""The form of a diagnosis, whoever made it: the embedded rules or a model."""

from __future__ import annotations

from typing import Literal

import msgspec

from kat_otel.verdict import Component

__all__ = ["Claim", "Diagnosis", "Hypothesis", "Told"]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Claim(_Record, frozen=True, kw_only=True):
    """One link of the causal chain; ``evidence_ids`` name at least one fact of the incident."""

    claim: str
    evidence_ids: list[str]


class Told(_Record, frozen=True, kw_only=True):
    """A fact that a model cites and that is not among the incident's evidence."""

    id: str
    text: str


class Hypothesis(_Record, frozen=True, kw_only=True):
    """A cause that was weighed, with the ids of the facts on either side.

    Attributes:
        probability: what the detector gives the component, not the cause alone.
    """

    root_cause: str
    component: Component
    probability: float
    evidence_for: list[str]
    evidence_against: list[str]


class Diagnosis(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """What an incident's ``diagnosis`` holds; fields that have their default are left out.

    Attributes:
        root_cause: id of a cause in the knowledge file, which is the closed list.
        confidence: at most the detector's confidence in the component; 0 if abstained.
        abstained: nothing is named as the cause; ``root_cause`` is ``unexplained``.
        mode: who made it.
        knowledge: version of the knowledge file.
        model: name of the model, as its endpoint knows it.
        prompt: version of the prompt.
        fingerprint: of what the model was told.
        context: facts cited beside the incident's evidence.
        rejected: why a model that was asked is not the one who speaks here: the reasons of all its
            answers, from a closed list (``reasons.py``). With ``mode`` ``model`` those of the
    first.
    """

    summary: str
    root_cause: str
    component: Component
    culprit_ranks: list[int]
    causal_chain: list[Claim]
    actions: list[str]
    references: list[str]
    confidence: float
    abstained: bool
    hypotheses: list[Hypothesis]
    mode: Literal["rules", "model"]
    knowledge: str
    model: str = ""
    prompt: str = ""
    fingerprint: str = ""
    context: list[Told] = []
    rejected: list[str] = []
