"""Whether the processor is well: named conditions, each with the sentence that explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Condition", "Conditions"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold.

    Attributes:
        name: of the thing, a word or two.
        ok: whether it holds.
        detail: what was found, for a person.
    """

    name: str
    ok: bool
    detail: str


Conditions = Callable[[], Sequence[Condition]]
"""Looks at the processor now; must be quick and wait for no lock that is held long."""
