"""Who makes the others wait at the collectives, from digests: one compiled pass over all steps.

The lateness logic of :mod:`kat_otel.ttad.lateness` in miniature. Every time is read on the
rank's own clock: its stretch of work since the last release (the end of the collective
before), or, where its host is behind its GPU (the collective starts as soon as it is launched),
since the last launch of a collective. A stretch beyond that of the peers makes a rank lag; a
lag counts once, at the meeting where the others wait for it. How long they wait is told by the
durations alone: the last to arrive has the shortest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kat_otel.compiled import inline, njit
from kat_otel.ttad import loops
from kat_otel.ttad.loops import median, select

__all__ = ["HOST", "LATE", "START", "WORST", "WORST_AT", "class_excess", "late_times"]

LATE = 0
"""Time that others waited for the rank, by its own doing within the step (ns)."""
HOST = 1
"""The part of it that its host is to blame for: it was launched late."""
START = 2
"""Time that others waited at the first meeting because the rank began late."""
WORST = 3
"""The largest single piece of LATE."""
WORST_AT = 4
"""The collective where it was, by its place in launch order."""

_CLUSTER = 0.25


@inline
def _middle(values: Any, count: int) -> tuple[float, float, float]:
    """Returns the three middle ones of at least two values, in order; reorders the values.

    The k-th for k = (count - 2) // 2 and the two behind it: the median of all but any one of
    the values is made of these.
    """
    low = (count - 2) // 2
    first = select(values, count, low)
    second = third = np.inf
    for at in range(low + 1, count):
        if values[at] < second:
            third, second = second, values[at]
        elif values[at] < third:
            third = values[at]
    return first, second, third


@inline
def _others(middle: tuple[float, float, float], count: int, value: float) -> float:
    """Returns the median of ``count`` values without ``value``, which is one of them."""
    first, second, third = middle
    # The k-th of the others is the k-th, or from the value's own place on the one behind it.
    low = second if first >= value else first
    if count % 2 == 0:
        return low
    return (low + (third if second >= value else second)) / 2


@njit(
    "Tuple((float64[:,:,::1], float64[::1]))"
    "(int64[:,:,::1], int64[:,:,::1], int64[:,:,::1], boolean[:,::1], int64[:,::1], float64)",
    uses=(loops,),
)
def late_times(
    ends: Any, spent: Any, lead: Any, present: Any, group: Any, host_bound_ns: float
) -> Any:
    """Measures lateness at all collectives of all steps.

    Args:
        ends: ends of the collectives after each rank's own start, int64 ``(S, R, C)`` ns.
        spent: their durations, the same shape.
        lead: from launch to start, -1 where not known, the same shape.
        present: which ranks are there, bool ``(S, R)``.
        group: members of which group meet here, int64 ``(C, R)``; -1: no meeting.
        host_bound_ns: a lead of at most this says that the host was behind.

    Returns:
        float64 ``(S, R, 5)`` by LATE, HOST, START, WORST, WORST_AT, and per step the sum over
        meetings of the transfer (the last arriver's duration, mean over groups), ns ``(S,)``.
    """
    steps, ranks, count = ends.shape
    out = np.zeros((steps, ranks, 5))
    transfer = np.zeros(steps)
    groups = 1
    for c in range(count):
        for r in range(ranks):
            groups = max(groups, group[c, r] + 1)
    own, host = np.zeros(ranks), np.zeros(ranks)
    some_own, some_host, waits = np.zeros(ranks), np.zeros(ranks), np.zeros(ranks)
    released, launched = np.zeros(ranks), np.zeros(ranks)
    size, place = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
    least, waited = np.zeros(groups), np.zeros(groups)
    lag, by_host = np.zeros(ranks), np.zeros(ranks)
    for s in range(steps):
        released[:] = 0.0
        launched[:] = 0.0
        lag[:] = 0.0
        by_host[:] = 0.0
        met = before = False
        for c in range(count):
            n = 0
            for r in range(ranks):
                if present[s, r]:
                    start = ends[s, r, c] - spent[s, r, c]
                    own[r] = max(start - released[r], 0.0)
                    called = start - max(lead[s, r, c], 0)
                    host[r] = called - launched[r]
                    launched[r] = called
                    released[r] = max(released[r], float(ends[s, r, c]))
                    some_own[n], some_host[n] = own[r], host[r]
                    n += 1
            if n < 2:
                continue
            middle_own, middle_host = _middle(some_own, n), _middle(some_host, n)
            for r in range(ranks):
                if not present[s, r]:
                    continue
                if 0 <= lead[s, r, c] <= host_bound_ns:
                    excess = host[r] - _others(middle_host, n, host[r])
                    by_host[r] += excess
                else:
                    excess = own[r] - _others(middle_own, n, own[r])
                    by_host[r] = 0.0
                lag[r] += excess
            size[:] = 0
            for r in range(ranks):
                if present[s, r] and group[c, r] >= 0:
                    size[group[c, r]] += 1
            begin = 0
            for g in range(groups):  # one stretch of waits per group
                place[g] = begin
                begin += size[g]
            for r in range(ranks):
                if present[s, r] and group[c, r] >= 0:
                    waits[place[group[c, r]]] = spent[s, r, c]
                    place[group[c, r]] += 1
            for g in range(groups):
                m = size[g]
                if m >= 2:
                    mine = waits[place[g] - m : place[g]]
                    least[g] = mine[0]
                    for at in range(1, m):
                        least[g] = min(least[g], mine[at])
                    waited[g] = median(mine, m) - least[g]
                    transfer[s] += least[g] / groups
            for r in range(ranks):
                g = group[c, r]
                if not present[s, r] or g < 0 or size[g] < 2:
                    continue
                met = True
                if spent[s, r, c] - least[g] <= _CLUSTER * waited[g]:
                    blame = min(max(lag[r], 0.0), waited[g])
                    out[s, r, LATE] += blame
                    if blame > out[s, r, WORST]:
                        out[s, r, WORST], out[s, r, WORST_AT] = blame, c
                    if by_host[r] > 0:
                        out[s, r, HOST] += min(by_host[r], blame)
                    if not before:
                        out[s, r, START] = max(waited[g] - max(lag[r], 0.0), 0.0)
                    lag[r] -= blame
                if not 0 <= lead[s, r, c] <= host_bound_ns:
                    lag[r] = 0.0  # all streams were released together; hosts were not
                    by_host[r] = 0.0
                else:
                    by_host[r] = lag[r]
            before = met
    return out, transfer


@njit(
    "Tuple((float64[:,:,::1], float64[:,:,::1]))(float64[:,:,::1], boolean[:,::1])", uses=(loops,)
)
def class_excess(time: Any, present: Any) -> Any:
    """Compares the time of each kernel class with the leave-one-out median of the peers.

    Args:
        time: float64 ``(S, R, K)`` ns.
        present: bool ``(S, R)``.

    Returns:
        Excess and expected time, float64 ``(S, R, K)``; both 0 for a rank without peers.
    """
    steps, ranks, classes = time.shape
    excess, expected = np.zeros(time.shape), np.zeros(time.shape)
    some = np.zeros(ranks)
    for s in range(steps):
        for k in range(classes):
            n = 0
            for r in range(ranks):
                if present[s, r]:
                    some[n] = time[s, r, k]
                    n += 1
            if n < 2:
                continue
            middle = _middle(some, n)
            for r in range(ranks):
                if present[s, r]:
                    expected[s, r, k] = _others(middle, n, time[s, r, k])
                    excess[s, r, k] = time[s, r, k] - expected[s, r, k]
    return excess, expected
