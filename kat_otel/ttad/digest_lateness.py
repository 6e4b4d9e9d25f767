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


_FEW = 48
"""So many values are sorted in place by insertion, more by NumPy's sort."""


@inline
def _sort(values: Any, count: int) -> None:
    if count > _FEW:
        values[:count].sort()
        return
    for at in range(1, count):
        value = values[at]
        before = at - 1
        while before >= 0 and values[before] > value:
            values[before + 1] = values[before]
            before -= 1
        values[before + 1] = value


@inline
def _others(ordered: Any, count: int, value: float) -> float:
    """Returns the median of ``count`` ordered values (at least two) but ``value``, one of them."""
    low, high = (count - 2) // 2, (count - 1) // 2
    # The k-th of the others is the k-th, or from the value's own place on the one behind it.
    first = ordered[low + 1] if ordered[low] >= value else ordered[low]
    second = ordered[high + 1] if ordered[high] >= value else ordered[high]
    return (first + second) / 2


@njit(
    "Tuple((float64[:,:,::1], float64[::1]))"
    "(int64[:,:,::1], int64[:,:,::1], int64[:,:,::1], boolean[:,::1], int64[:,::1], float64)"
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
    ordered_own, ordered_host, waits = np.zeros(ranks), np.zeros(ranks), np.zeros(ranks)
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
                    ordered_own[n], ordered_host[n] = own[r], host[r]
                    n += 1
            if n < 2:
                continue
            _sort(ordered_own, n)
            _sort(ordered_host, n)
            for r in range(ranks):
                if not present[s, r]:
                    continue
                if 0 <= lead[s, r, c] <= host_bound_ns:
                    value, ordered, behind = host[r], ordered_host, True
                else:
                    value, ordered, behind = own[r], ordered_own, False
                excess = value - _others(ordered, n, value)
                lag[r] += excess
                by_host[r] = by_host[r] + excess if behind else 0.0
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
                    _sort(mine, m)
                    least[g] = mine[0]
                    waited[g] = (mine[(m - 1) // 2] + mine[m // 2]) / 2 - mine[0]
                    transfer[s] += mine[0] / groups
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


@njit("Tuple((float64[:,:,::1], float64[:,:,::1]))(float64[:,:,::1], boolean[:,::1])")
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
    ordered = np.zeros(ranks)
    for s in range(steps):
        for k in range(classes):
            n = 0
            for r in range(ranks):
                if present[s, r]:
                    ordered[n] = time[s, r, k]
                    n += 1
            if n < 2:
                continue
            _sort(ordered, n)
            for r in range(ranks):
                if present[s, r]:
                    expected[s, r, k] = _others(ordered, n, time[s, r, k])
                    excess[s, r, k] = time[s, r, k] - expected[s, r, k]
    return excess, expected
