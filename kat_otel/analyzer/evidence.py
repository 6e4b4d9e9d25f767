"""Which facts of an incident a pattern means, and which of them say that nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterable

from kat_otel.analyzer.knowledge import Pattern
from kat_otel.verdict import NOTHING_UNUSUAL, Evidence

__all__ = ["matching", "silent"]


def matching(patterns: Iterable[Pattern], facts: Iterable[Evidence]) -> list[Evidence]:
    """Returns the facts that one of the patterns means, in the order of the facts.

    A fact that says that its signal is unremarkable matches nothing.
    """
    wanted = list(patterns)
    return [
        fact
        for fact in facts
        if not _says_nothing_unusual(fact) and any(_fits(pattern, fact) for pattern in wanted)
    ]


def silent(patterns: Iterable[Pattern], facts: Iterable[Evidence]) -> list[Evidence]:
    """Returns the facts that say that a signal of the patterns is measured and unremarkable."""
    signals = {pattern.signal for pattern in patterns}
    return [fact for fact in facts if fact.signal in signals and _says_nothing_unusual(fact)]


def _fits(pattern: Pattern, fact: Evidence) -> bool:
    if pattern.signal != fact.signal:
        return False
    if pattern.at_least is None and pattern.below is None:
        return True
    if fact.value is None:
        return False
    size = abs(fact.value)
    return (pattern.at_least is None or size >= pattern.at_least) and (
        pattern.below is None or size < pattern.below
    )


def _says_nothing_unusual(fact: Evidence) -> bool:
    return fact.id.startswith("H") and f": {NOTHING_UNUSUAL} " in fact.text
