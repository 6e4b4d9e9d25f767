"""Whether work or transfers of a step may take longer than usual: the loops of a glance.

As :mod:`kat_otel.ttad.durations` and :mod:`kat_otel.ttad.groups` have it, of ranks that are all
peers, with limits that are a little closer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kat_otel.compiled import inline, njit
from kat_otel.ttad import durations, loops, robust_loops
from kat_otel.ttad.durations import totals
from kat_otel.ttad.robust_loops import leave_one_out

__all__ = ["moves_slowly", "takes_longer"]

_CLOSER = 0.999
"""Limits are closer by this, for rounding."""


@inline
def _above(steps: Any, node: int, rank: int, limit: float) -> bool:
    """Whether the median of a node over some steps is surely above a limit."""
    count, held = 0, steps.shape[0]
    for step in range(held):
        count += steps[step, node, rank] > limit
        if count > held // 2:
            return True
    return False


@inline
def _usually(ordered: Any, held: int, node: int, rank: int) -> float:
    """As history.Expectation.duration: the median of values that are in order."""
    cell = ordered[node, rank]
    high = cell[held // 2]
    return high if held % 2 else (cell[held // 2 - 1] + high) / 2


@njit(
    "boolean(Tuple((float64[:, ::1], boolean[::1], boolean[::1], boolean[:, ::1])),"
    " UniTuple(float64[:, :, ::1], 2), UniTuple(float64, 4))",
    uses=(durations, loops, robust_loops),
)
def takes_longer(measured: Any, usual: Any, limits: Any) -> bool:
    """Whether a kernel, a rank's kernels, or everybody's, may take longer than they should."""
    duration, is_kernel, local, usable = measured
    steps, ordered = usual
    least, smallest, kernel, rank_limit = limits
    nodes, ranks = duration.shape
    few = len(ordered) > 0
    expected, others = leave_one_out(duration, usable)
    judged = np.zeros((nodes, ranks), np.bool_)
    excess = np.zeros((nodes, ranks))
    count = 0
    for node in range(nodes):
        for rank in range(ranks):
            if not usable[node, rank]:
                continue
            known = others[node, rank] > 0
            if few:
                before = _usually(ordered, steps.shape[0], node, rank)
                if before > 0:
                    expected[node, rank], known = before, True
            if known:
                judged[node, rank] = True
                excess[node, rank] = duration[node, rank] - expected[node, rank]
                count += 1
    if count >= least:
        base, total, large = totals(judged, is_kernel, expected, excess, _CLOSER * kernel)
        for rank in range(ranks):
            longer = base[rank] > 0 and total[rank] >= _CLOSER * rank_limit * max(base[rank], 1.0)
            if large[rank] or longer:
                return True
    for node in range(nodes):
        if not local[node]:
            continue
        slower = True  # one rank that is no slower than before clears a node
        for rank in range(ranks):
            limit = max(duration[node, rank] - smallest, 0.0)
            if few:
                slower &= _usually(ordered, steps.shape[0], node, rank) <= limit
            else:
                slower &= not _above(steps, node, rank, limit)
            if not slower:
                break
        if slower:
            return True
    return False


@njit(
    "boolean(int64[::1], int32[::1], float64[::1], float64[:, :, ::1], UniTuple(float64, 2))",
)
def moves_slowly(node: Any, group: Any, transfer: Any, steps: Any, limits: Any) -> bool:
    """Whether a group's transfers may take longer than before, at half of its meetings."""
    least, excess = limits
    limit = 1 + _CLOSER * excess
    order = np.argsort(group, kind="mergesort")
    count = slow = 0
    for at in range(len(order)):
        one = order[at]
        if at and group[one] != group[order[at - 1]]:
            count = slow = 0
        count += 1
        slow += not _above(steps, node[one], 0, transfer[one] / limit)
        ends = at + 1 == len(order) or group[order[at + 1]] != group[one]
        if ends and count >= least and 2 * slow >= count:
            return True
    return False
