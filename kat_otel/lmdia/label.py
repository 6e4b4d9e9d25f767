"""The truth about a case, as it stands beside its traces."""

from __future__ import annotations

from typing import Literal

import msgspec

from kat_otel.verdict import Component, Kind

__all__ = ["Allowed", "Label", "Part", "Truth"]

Part = Literal["fault", "confounder", "healthy"]
"""What a case is: something sick, something that only looks so, or neither."""


class Truth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault of a case.

    Attributes:
        kinds: kinds of ``kat.report/v1`` that describe it rightly, the best first.
        culprits: ranks where it is; empty if no rank differs from the others.
        hosts: hosts of the culprits; all hosts concerned where there is no culprit.
        victims: ranks that wait for the culprits and are healthy.
        component: what is sick, as metrics and logs show.
        candidates: what traces alone can tell, at most three, ``component`` among them.
        first_step, last_step: first and last judged step that has it.
        severity: share by which a step gets longer, measured without noise.
        magnitude, unit: how much of what was put in.
        text: one sentence for people.
    """

    kinds: tuple[Kind, ...]
    culprits: tuple[int, ...]
    hosts: tuple[str, ...]
    victims: tuple[int, ...]
    component: Component
    candidates: tuple[Component, ...]
    first_step: int
    last_step: int
    severity: float
    magnitude: float
    unit: str
    text: str


class Allowed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be said of a confounder without being wrong.

    Attributes:
        kinds: kinds of incident.
        components: components that it may name.
        ranks: ranks that it may name; any if None.
    """

    kinds: tuple[Kind, ...]
    components: tuple[Component, ...]
    ranks: tuple[int, ...] | None = None


class Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a detector should say of a case.

    Attributes:
        case: its name.
        task: whose steps were simulated, or the real trace that was used.
        part: fault, confounder or healthy.
        scenario: name of the scenario or confounder; ``healthy``.
        steps: numbers of the steps that the case has.
        warm_up: how many of them are healthy at the beginning: to learn from, nothing is there.
        faults: what is sick; empty unless the part is ``fault``. Two are joint culprits.
        allowed: what may be said besides.
        notes: how it was made.
    """

    case: str
    task: str
    part: Part
    scenario: str
    steps: tuple[int, ...]
    warm_up: int
    faults: tuple[Truth, ...] = ()
    allowed: tuple[Allowed, ...] = ()
    notes: tuple[str, ...] = ()
