"""The form of a diagnosis, whoever made it: the embedded rules or, later, a model."""

from __future__ import annotations

from typing import Literal

import msgspec

from kat_otel.verdict import Component

__all__ = ["Claim", "Diagnosis", "Hypothesis"]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Claim(_Record, frozen=True, kw_only=True):
    """One link of the causal chain; ``evidence_ids`` name at least one fact of the incident."""

    claim: str
    evidence_ids: list[str]


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


class Diagnosis(_Record, frozen=True, kw_only=True):
    """What an incident's ``diagnosis`` holds.

    Attributes:
        root_cause: id of a cause in the knowledge file, which is the closed list.
        confidence: at most the detector's confidence in the component; 0 if abstained.
        abstained: nothing is named as the cause; ``root_cause`` is ``unexplained``.
        mode: who made it.
        knowledge: version of the knowledge file.
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
