"""Compiled loops over the features of digests: what array operations would cost a small step.

A batch of a few ranks and steps is so little work that calling NumPy twenty times is most of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kat_otel.compiled import njit
from kat_otel.ttad import loops
from kat_otel.ttad.loops import median

__all__ = ["features_of", "large_of", "medians", "spread", "stand_out"]

_SLOWER = 0.02
"""A kernel class counts as slower on a rank from this share on."""

_F3, _F2, _F1 = "float64[:,:,::1]", "float64[:,::1]", "float64[::1]"


@njit(f"Tuple(({_F3}, {_F2}))({_F3}, {_F3}, {_F3}, {_F2}, {_F1})")
def features_of(late: Any, excess: Any, expected: Any, copies: Any, length: Any) -> Any:
    """Returns the features of each rank and step, and the share of its work in slower classes.

    Args:
        late: time waited for the rank within the step and at its begin, ns ``(S, R, 2)``.
        excess, expected: of its kernel classes, ns ``(S, R, K)``.
        copies: excess of its copies, ns ``(S, R)``.
        length: of the steps, ns ``(S,)``.

    Returns:
        float64 ``(S, R, 4 + K)`` as ``DigestHistory`` has them, and ``(S, R)``.
    """
    steps, ranks, classes = excess.shape
    features, breadth = np.empty((steps, ranks, 4 + classes)), np.empty((steps, ranks))
    for s in range(steps):
        for r in range(ranks):
            total = more = broad = 0.0
            for k in range(classes):
                own, usual = excess[s, r, k], expected[s, r, k]
                total += usual
                more += own
                if usual > 0 and own >= _SLOWER * usual:
                    broad += usual
                features[s, r, 4 + k] = own / length[s]
            total = max(total, 1.0)
            features[s, r, 0] = late[s, r, 0] / length[s]
            features[s, r, 1] = late[s, r, 1] / length[s]
            features[s, r, 2] = more / total
            features[s, r, 3] = copies[s, r] / length[s]
            breadth[s, r] = broad / total
    return features, breadth


@njit(f"boolean[:,:,::1]({_F3}, {_F2}, {_F3}, {_F3}, {_F1})")
def large_of(features: Any, breadth: Any, excess: Any, expected: Any, least: Any) -> Any:
    """Returns which features are large enough to matter.

    Args:
        features, breadth: as of :func:`features_of`.
        excess, expected: of the kernel classes, ns ``(S, R, K)``.
        least: of a share of the step; of a rank's kernel time, and of the part of its classes
            that must be slower; of a class's own time, and of the step that it must then cost.

    Returns:
        bool ``(S, R, 4 + K)``.
    """
    share, of_rank, broad, of_class, small = least
    steps, ranks, count = features.shape
    large = np.zeros((steps, ranks, count), np.bool_)
    for s in range(steps):
        for r in range(ranks):
            for f in range(count):
                large[s, r, f] = features[s, r, f] >= share
            large[s, r, 2] = features[s, r, 2] >= of_rank and breadth[s, r] >= broad
            for k in range(count - 4):
                cost = features[s, r, 4 + k]
                ratio = excess[s, r, k] / max(expected[s, r, k], 1.0)
                large[s, r, 4 + k] = (ratio >= of_class and cost >= small) or (
                    ratio >= 0.1 and cost >= share
                )
    return large


@njit(f"boolean[:,:,::1]({_F3}, boolean[:,:,::1])", uses=(loops,))
def stand_out(features: Any, large: Any) -> Any:
    """Returns where a rank's feature is large and far above those of its peers.

    Args:
        features: float64 ``(S, R, F)``.
        large: bool, the same shape.

    Returns:
        bool, the same shape: at least twice the ranks' median and half of their largest.
    """
    steps, ranks, count = features.shape
    alone = np.zeros((steps, ranks, count), np.bool_)
    if ranks < 2:
        return alone
    some = np.empty(ranks)
    for s in range(steps):
        for f in range(count):
            found = False
            for r in range(ranks):
                found |= large[s, r, f]
            if not found:
                continue
            peak = features[s, 0, f]
            for r in range(ranks):
                some[r] = features[s, r, f]
                peak = max(peak, some[r])
            middle = median(some, ranks)
            for r in range(ranks):
                value = features[s, r, f]
                alone[s, r, f] = large[s, r, f] and value >= 2 * middle and value >= 0.5 * peak
    return alone


@njit(f"{_F2}({_F3})", uses=(loops,))
def medians(values: Any) -> Any:
    """Returns the medians over the first axis of ``(n, R, F)``, ``n`` at least 1."""
    steps, ranks, count = values.shape
    middle, some = np.empty((ranks, count)), np.empty(steps)
    for r in range(ranks):
        for f in range(count):
            for s in range(steps):
                some[s] = values[s, r, f]
            middle[r, f] = median(some, steps)
    return middle


@njit(f"Tuple(({_F1}, {_F1}))({_F3}, {_F2})", uses=(loops,))
def spread(values: Any, middle: Any) -> Any:
    """Returns the median and the largest distance from the middle, over ranks and steps.

    Args:
        values: ``(n, R, F)``.
        middle: of each rank, ``(R, F)``.

    Returns:
        Median of the absolute residuals and the largest residual (0 at least), ``(F,)`` each.
    """
    steps, ranks, count = values.shape
    typical, peak = np.empty(count), np.zeros(count)
    some = np.empty(steps * ranks)
    for f in range(count):
        for s in range(steps):
            for r in range(ranks):
                residual = values[s, r, f] - middle[r, f]
                peak[f] = max(peak[f], residual)
                some[s * ranks + r] = abs(residual)
        typical[f] = median(some, steps * ranks)
    return typical, peak
