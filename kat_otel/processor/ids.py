"""Span ids in order, merged batch by batch: what tells a repeated span from a new one."""

from __future__ import annotations

from typing import Any

import numpy as np

from kat_otel.compiled import njit

__all__ = ["merge_ids"]


@njit("Tuple((uint64[::1], boolean))(uint64[::1], uint64[::1])")
def merge_ids(old: Any, new: Any) -> Any:
    """Merges two sorted lists of ids; ``old`` holds no id twice.

    Returns:
        All ids, each once, sorted uint64; and whether none of ``new`` came before.
    """
    merged = np.empty(len(old) + len(new), np.uint64)
    at = count = 0
    unique = True
    for one in new:
        while at < len(old) and old[at] < one:
            merged[count] = old[at]
            at += 1
            count += 1
        if (at < len(old) and old[at] == one) or (count and merged[count - 1] == one):
            unique = False
            continue
        merged[count] = one
        count += 1
    while at < len(old):
        merged[count] = old[at]
        at += 1
        count += 1
    return merged[:count].copy() if count < len(merged) else merged, unique
