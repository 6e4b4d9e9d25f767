"""Whether arrivals at the meetings of a step may be later than by chance: the loops of a glance.

As :mod:`kat_otel.ttad.lateness`, of ranks that are all peers, and without what a report asks for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kat_otel.compiled import inline, njit
from kat_otel.ttad import lateness_loops, loops, robust, robust_loops
from kat_otel.ttad.lateness_loops import (
    deviations,
    entries,
    last_arrivers,
    on_its_clock,
    spread_of_others,
    stands_out,
    tests_of,
)
from kat_otel.ttad.loops import median, select
from kat_otel.ttad.robust_loops import leave_one_out, pooled_scales

__all__ = ["arrives_late", "stretch_kinds"]

_TIMES, _FLAGS, _COLUMN = "float64[:, ::1]", "boolean[:, ::1]", "float64[::1]"
_KINDS = "Tuple((int64[::1], int64, int64[::1]))"


@njit("Tuple((int64[::1], int64, int64[::1]))(int64[::1], int64[:, ::1], int32[::1], int64)")
def stretch_kinds(node: Any, previous: Any, family: Any, families: int) -> Any:
    """As lateness.stretch_kinds: meetings by what lies before them, numbered."""
    size = len(family)
    keys = np.empty(len(node), np.int64)
    for at in range(len(node)):
        before = previous[at].max()
        follows, distance = -1, 0
        if before >= 0:
            follows, distance = family[node[before]], node[at] - node[before]
        mine = np.int64(family[node[at]]) * (families + 1) + follows + 1
        keys[at] = mine * (2 * size + 1) + distance + size
    order = np.argsort(keys, kind="mergesort")
    kind = np.empty(len(node), np.int64)
    number = -1
    for at in range(len(node)):
        if at == 0 or keys[order[at]] != keys[order[at - 1]]:
            number += 1
        kind[order[at]] = number
    return kind, number + 1, order


@inline
def _middle(own: Any, count: int) -> float:
    """As robust.masked_median, of the first ``count`` values; 0 of none."""
    if count == 0:
        return 0.0
    high = select(own, count, count // 2)
    low = high
    if count % 2 == 0:
        low = own[0]
        for at in range(1, count // 2):
            low = max(low, own[at])
    return low / 2 + high / 2


@njit(
    f"Tuple(({_TIMES}, {_COLUMN}, {_COLUMN}, {_FLAGS}))({_TIMES}, {_FLAGS}, {_KINDS}, int64)",
    uses=(loops, robust, robust_loops),
)
def _clock(stretch: Any, mask: Any, kinds_: Any, least: int) -> Any:
    """As lateness.on_clock, of ranks that are all peers."""
    kind, kinds, order = kinds_
    rows, ranks = stretch.shape
    usual, others = leave_one_out(stretch, mask)
    compared = np.zeros((rows, ranks), np.bool_)
    excess, apart_ = np.zeros((rows, ranks)), np.zeros((rows, ranks))
    for row in range(rows):
        for rank in range(ranks):
            if mask[row, rank] and others[row, rank] > 0:
                compared[row, rank] = True
                excess[row, rank] = stretch[row, rank] - usual[row, rank]
                apart_[row, rank] = excess[row, rank]
    own = np.empty(max(rows, ranks))
    repeats = np.zeros(kinds, np.int64)
    for row in range(rows):
        repeats[kind[row]] += 1
    begin = 0
    for one in range(kinds):
        end = begin + repeats[one]
        if repeats[one] >= least:
            for rank in range(ranks):
                count = 0
                for at in range(begin, end):
                    if compared[order[at], rank]:
                        own[count] = excess[order[at], rank]
                        count += 1
                centre = _middle(own, count)
                for at in range(begin, end):
                    apart_[order[at], rank] -= centre
        begin = end
    pooled, count_of = pooled_scales(apart_, compared, kind, kinds)
    everyone, total = pooled_scales(excess, compared, np.zeros(rows, np.int64), 1)
    lent = min(10, total[0])
    sigma, freedom = np.empty(rows), np.empty(rows)
    for row in range(rows):
        one, count = kind[row], 0
        for rank in range(ranks):
            if compared[row, rank]:
                own[count] = abs(excess[row, rank]) * robust.MAD_TO_SIGMA
                count += 1
        if repeats[one] >= least:
            sigma[row], freedom[row] = max(pooled[one], 1e-9), count_of[one]
            continue
        freedom[row], sigma[row] = count + lent, 0.0
        if count >= least:
            across = _middle(own, count)
            share = (count * across * across + lent * everyone[0] * everyone[0]) / (count + lent)
            sigma[row] = max(np.sqrt(share), 1e-9)
    return excess, sigma, freedom, compared


@njit(
    f"Tuple((boolean, float64))(Tuple(({_FLAGS}, {_TIMES}, {_TIMES})),"
    f" Tuple(({_FLAGS}, {_FLAGS}, {_FLAGS}, {_TIMES})), {_KINDS}, {_COLUMN},"
    " Tuple((int64, float64, float64, float64, float64)))",
    uses=(lateness_loops, loops, robust, robust_loops),
)
def arrives_late(met: Any, bound: Any, kinds: Any, gaps: Any, limits: Any) -> Any:
    """Whether an arrival may be later than by chance; and the gap at first meetings (-1: none)."""
    member, arrival, elapsed = met
    host, synced, entry, other = bound
    least, floor, relative, tail, rate = limits
    by_gpu = member & ~host & ~entry
    gpu = _clock(elapsed, by_gpu, kinds, least)
    by_host = gpu  # where nothing is measured by the host's clock, nothing is asked of it
    if host.any():
        by_host = _clock(other, member & (other > 0), kinds, least)
    last = last_arrivers(member, arrival, 0.25)
    excess, sigma, freedom, judged = on_its_clock(host, by_gpu, by_host, gpu)
    meeting, final, gap = entries(entry, member, arrival)
    usual = gaps.copy()
    if len(usual) < 16:
        usual = np.abs(excess.ravel()[(judged & (host | synced)).ravel()])
    if len(usual) >= 16:
        scale = median(usual, len(usual)) if len(meeting) else 0.0
    else:
        scale = spread_of_others(arrival, member, meeting, final, 5)
    firsts = len(meeting) if scale >= 0 else 0
    for at in range(firsts):
        row, rank = meeting[at], final[at]
        excess[row, rank] = gap[at]
        sigma[row] = robust.MAD_TO_SIGMA * scale
        freedom[row] = 9
        judged[row, rank] = True
        last[row] = False
        last[row, rank] = True
    z, _, counts = deviations(
        (excess, sigma, elapsed, other), (judged, host, entry, last), floor, relative
    )
    loose = np.minimum(np.maximum(0.37 * (freedom - 1.0), 2.0), tail)
    largest = gap.max() if len(gap) else -1.0
    tests = tests_of(judged, meeting[:firsts], final[:firsts])
    return stands_out((z, loose, tests), judged, counts, rate), largest
