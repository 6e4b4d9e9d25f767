"""One order of operations for ranks whose programs differ: the first half of extraction.

Ranks run nearly the same program, but one may have launched a few kernels more. The merged
order keeps every rank's own order; collectives are matched by their count, and between two
of them the longest common subsequences decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray

__all__ = ["merge_orders"]


def merge_orders(
    sequences: Sequence[Sequence[int]], anchors: frozenset[int]
) -> list[NDArray[np.int64]]:
    """Returns, for each sequence, the place of its items in one merged order.

    Args:
        sequences: keys of each rank's operations in host order.
        anchors: keys that are matched strictly by count (collectives).

    Returns:
        One int64 array per sequence, strictly increasing, with values below the merged length.

    Raises:
        ValueError: the sequences have different anchors.
    """
    pieces = [_split(sequence, anchors) for sequence in sequences]
    chains = {tuple(anchor for _, anchor in piece) for piece in pieces}
    if len(chains) > 1:
        counts = ", ".join(str(len(chain) - 1) for chain in sorted(chains, key=len))
        raise ValueError(
            f"the ranks have different collectives (counts {counts}): no common program"
        )
    places: list[list[int]] = [[] for _ in sequences]
    at = 0
    for parts in zip(*pieces, strict=True):
        merged = _merge_parts([part for part, _ in parts])
        width = 1 + max((int(p[-1]) for p in merged if len(p)), default=-1)
        for own, place, (_, anchor) in zip(places, merged, parts, strict=True):
            own.extend(at + int(p) for p in place)
            if anchor is not None:
                own.append(at + width)
        at += width + 1
    return [np.array(own, np.int64) for own in places]


def _split(sequence: Sequence[int], anchors: frozenset[int]) -> list[tuple[list[int], int | None]]:
    pieces: list[tuple[list[int], int | None]] = []
    piece: list[int] = []
    for key in sequence:
        if key in anchors:
            pieces.append((piece, key))
            piece = []
        else:
            piece.append(key)
    return [*pieces, (piece, None)]


def _merge_parts(parts: Sequence[list[int]]) -> list[list[int]]:
    """Merges the parts one by one into the first; returns the places of each part's items."""
    merged: list[int] = []
    places: list[list[int]] = []
    for part in parts:
        order: list[int] = []
        moved = [0] * len(merged)
        place: list[int] = []
        matcher = SequenceMatcher(None, merged, part, autojunk=False)
        for tag, i0, i1, j0, j1 in matcher.get_opcodes():
            for i in range(i0, i1):
                moved[i] = len(order)
                if tag == "equal":
                    place.append(len(order))
                order.append(merged[i])
            if tag != "equal":
                for j in range(j0, j1):
                    place.append(len(order))
                    order.append(part[j])
        places = [[moved[p] for p in earlier] for earlier in places]
        places.append(place)
        merged = order
    return places
