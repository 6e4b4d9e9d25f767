"""How a set of ranks is said, the same in evidence, diagnoses, spans and reports."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["rank_list", "ranks_text"]

_MAX_RANGES = 6
"""Ranges of ranks said one by one; a fleet's thousand scattered ranks become a count."""


def rank_list(ranks: Sequence[int]) -> str:
    """Returns ranks as ranges, ``0-3, 6 and 8-9``; beyond six ranges the rest is counted."""
    ordered = sorted(set(ranks))
    ranges: list[tuple[int, int]] = []
    for rank in ordered:
        if ranges and rank == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], rank)
        else:
            ranges.append((rank, rank))
    said = [str(a) if a == b else f"{a}-{b}" for a, b in ranges[:_MAX_RANGES]]
    left = sum(b - a + 1 for a, b in ranges[_MAX_RANGES:])
    if left:
        said.append(f"{left:,} more")
    return ", ".join(said[:-1]) + " and " + said[-1] if len(said) > 1 else "".join(said)


def ranks_text(ranks: Sequence[int]) -> str:
    """Returns ``rank 7``, ``ranks 0-6``, or ``no rank``."""
    count = len(set(ranks))
    if count == 0:
        return "no rank"
    return f"rank{'s' if count > 1 else ''} {rank_list(ranks)}"
