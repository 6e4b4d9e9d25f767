"""The loops of :mod:`kat_otel.ttad.lateness` over meetings and ranks, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from kat_otel.compiled import inline, njit
from kat_otel.ttad import loops
from kat_otel.ttad.loops import median

__all__ = [
    "deviations",
    "entries",
    "last_arrivers",
    "on_its_clock",
    "shares",
    "spread_of_others",
    "stands_out",
    "tests_of",
]

_FLAGS, _TIMES, _COLUMN = "boolean[:, ::1]", "float64[:, ::1]", "float64[::1]"
_CLOCK = f"Tuple(({_TIMES}, {_COLUMN}, {_COLUMN}, {_FLAGS}))"


@njit(
    f"Tuple(({_TIMES}, {_TIMES}, {_TIMES}, {_FLAGS}))({_FLAGS}, {_FLAGS}, {_CLOCK}, {_CLOCK})",
)
def on_its_clock(by_host: Any, by_gpu: Any, host: Any, gpu: Any) -> Any:
    """Takes each arrival from the clock that applies to it.

    Args:
        by_host: measured by the host's clock, ``(C, R)``.
        by_gpu: measured by the GPU's, ``(C, R)``.
        host, gpu: excess ``(C, R)``, sigma and degrees of freedom ``(C,)``, compared ``(C, R)``.

    Returns:
        Excess, sigma, degrees of freedom and judged, ``(C, R)``.
    """
    shape = by_host.shape
    excess, sigma, freedom = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    judged = np.zeros(shape, np.bool_)
    for row in range(shape[0]):
        for rank in range(shape[1]):
            if by_host[row, rank]:
                excess[row, rank] = host[0][row, rank]
                sigma[row, rank], freedom[row, rank] = host[1][row], host[2][row]
                judged[row, rank] = host[3][row, rank] and host[1][row] > 0
                continue
            sigma[row, rank], freedom[row, rank] = gpu[1][row], gpu[2][row]
            if by_gpu[row, rank]:
                excess[row, rank] = gpu[0][row, rank]
                judged[row, rank] = gpu[3][row, rank] and gpu[1][row] > 0
    return excess, sigma, freedom, judged


@njit(
    f"Tuple(({_TIMES}, {_TIMES}, {_FLAGS}))"
    f"(UniTuple({_TIMES}, 4), UniTuple({_FLAGS}, 4), float64, float64)"
)
def deviations(times: Any, flags: Any, least: float, relative: float) -> Any:
    """Measures each excess in standard deviations, none of which is below the clock's jitter.

    Args:
        times: excess, sigma, elapsed by the GPU's and by the host's clock, ``(C, R)``.
        flags: judged, by the host's clock, first meeting, among the last, ``(C, R)``.
        least: smallest sigma, ns.
        relative: the same as a share of the time that was expected; not of a first meeting.

    Returns:
        z (0 where not judged), what was expected to elapse, and whether others waited for it.
    """
    excess, sigma, elapsed, other = times
    judged, by_host, entry, last = flags
    z, expected = np.zeros(excess.shape), np.zeros(excess.shape)
    counts = np.zeros(excess.shape, np.bool_)
    for row in range(excess.shape[0]):
        for rank in range(excess.shape[1]):
            more = excess[row, rank]
            expected[row, rank] = max(elapsed[row, rank] - more, 0.0)
            if not judged[row, rank]:
                continue
            stretch = other[row, rank] if by_host[row, rank] else elapsed[row, rank]
            share = 0.0 if entry[row, rank] else relative * max(stretch - more, 0.0)
            floor = np.hypot(least, share)
            z[row, rank] = more / np.hypot(sigma[row, rank], floor)
            counts[row, rank] = more > 0 and (by_host[row, rank] or last[row, rank])
    return z, expected, counts


@inline
def _tail(z: float, freedom: float) -> float:
    """As robust.t_tail, of one deviation."""
    size = min(abs(z), 1e9)
    u = (8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(size * size / freedom))
    tail = 4 * np.exp(-u * u / 2) * 0.3989422804014327 / (3 * u + np.sqrt(u * u + 8))
    tail = min(max(tail, 1e-300), 0.5)
    return tail if z >= 0 else 1 - tail


@njit(f"float64({_TIMES}, {_FLAGS}, int64[::1], int64[::1], int64)", uses=(loops,))
def spread_of_others(arrival: Any, member: Any, row: Any, rank: Any, fewest: int) -> float:
    """How far arrivals at some meetings lie from their middle, in the median, ns; -1 if too few.

    Without that of ``rank`` at each ``row``, and of meetings that have two others at least.
    """
    all_of = np.empty(len(row) * member.shape[1])
    own = np.empty(member.shape[1])
    found = 0
    for at in range(len(row)):
        count = 0
        for other in range(member.shape[1]):
            if member[row[at], other] and other != rank[at]:
                own[count] = arrival[row[at], other]
                count += 1
        if count < 2:
            continue
        middle = median(own.copy(), count)
        for other in range(count):
            all_of[found] = abs(own[other] - middle)
            found += 1
    return median(all_of, found) if found >= fewest else -1.0


@njit(f"{_TIMES}({_FLAGS}, int64[::1], int64[::1])")
def tests_of(judged: Any, row: Any, rank: Any) -> Any:
    """By how many each arrival's chance is multiplied, ``(C, R)``: Bonferroni's bound, weighted.

    The arrivals at first meetings (``row``, ``rank``) are few, with a loose scale each: half of the
    rate of false alarms is theirs, the other half that of all others.
    """
    count, firsts = max(judged.sum(), 1), 0
    for at in range(len(row)):
        firsts += judged[row[at], rank[at]]
    tests = np.full(judged.shape, float(count if firsts == 0 else 2 * max(count - firsts, 1)))
    for at in range(len(row)):
        if firsts and judged[row[at], rank[at]]:
            tests[row[at], rank[at]] = 2.0 * firsts
    return tests


@njit(f"boolean(UniTuple({_TIMES}, 3), {_FLAGS}, {_FLAGS}, float64)")
def stands_out(deviations: Any, judged: Any, counts: Any, rate: float) -> bool:
    """Returns whether any arrival, or all of a rank's, may be beyond chance; False if surely not.

    Chances are as of ``robust.t_tail`` and ``robust.combine_p``, to be below twice the ``rate``
    (for rounding), corrected for the number of tests, and without what other ranks' deviations say,
    which only makes a chance larger.

    Args:
        deviations: z, degrees of freedom, and by how many a chance is multiplied.
        judged, counts: as in :class:`lateness.Lateness`.
        rate: of false alarms.
    """
    z, freedom, tests = deviations
    rows, ranks = z.shape
    for rank in range(ranks):
        number, logs, waited_for = 0, 0.0, False
        for row in range(rows):
            if not judged[row, rank]:
                continue
            p = _tail(z[row, rank], freedom[row, rank])
            number += 1
            logs -= 2 * np.log(p)
            if counts[row, rank]:
                waited_for = True
                if p * tests[row, rank] <= 2 * rate:
                    return True
        if not waited_for:
            continue
        width = 2 / (18.0 * number)
        deviate = ((logs / (2.0 * number)) ** (1 / 3) - (1 - width)) / np.sqrt(width)
        if deviate > 0 and _tail(deviate, 1000.0) * ranks <= 2 * rate:
            return True
    return False


@njit(f"{_TIMES}({_TIMES}, {_FLAGS}, int64)")
def shares(z: Any, judged: Any, fewest: int) -> Any:
    """Share of the other ranks' deviations that are as large, ``(C, R)``; 0 where they are few.

    Counts among everybody's deviations, less one's own.
    """
    p = np.zeros(z.shape)
    everybody = np.sort(z.ravel()[judged.ravel()])
    for rank in range(z.shape[1]):
        own = np.sort(z[:, rank][judged[:, rank]])
        others = len(everybody) - len(own)
        if others < fewest:
            continue
        for row in range(z.shape[0]):
            if not judged[row, rank]:
                continue
            value = z[row, rank]
            above = len(everybody) - int(np.searchsorted(everybody, value))  # pyright: ignore[reportUnknownArgumentType]
            above -= len(own) - int(np.searchsorted(own, value))  # pyright: ignore[reportUnknownArgumentType]
            p[row, rank] = (above + 1) / (others + 1)
    return p


@njit(f"{_FLAGS}({_FLAGS}, {_TIMES}, float64)", uses=(loops,))
def last_arrivers(member: Any, arrival: Any, cluster: float) -> Any:
    """Who arrives with the last: within a share of its distance from the middle arrival."""
    last = np.zeros(member.shape, np.bool_)
    own = np.empty(member.shape[1])
    for row in range(member.shape[0]):
        count, latest = 0, -np.inf
        for rank in range(member.shape[1]):
            if member[row, rank]:
                own[count] = arrival[row, rank]
                latest = max(latest, own[count])
                count += 1
        if count:
            middle = median(own, count)
            near = latest - cluster * (latest - middle)
            for rank in range(member.shape[1]):
                time = arrival[row, rank]
                last[row, rank] = member[row, rank] and time >= near and time > middle
    return last


@njit(f"Tuple((int64[::1], int64[::1], {_COLUMN}))({_FLAGS}, {_FLAGS}, {_TIMES})")
def entries(entry: Any, member: Any, arrival: Any) -> Any:
    """Finds the meetings that are the first of all their members (two at least).

    Returns:
        Meeting, column of its last arriver, and the gap to the next of them, ns.
    """
    rows, ranks = entry.shape
    meeting, final, gap = np.empty(rows, np.int64), np.empty(rows, np.int64), np.empty(rows)
    found = 0
    for row in range(rows):
        members, first, late = 0, True, -1
        latest = second = -np.inf
        for rank in range(ranks):
            if not member[row, rank]:
                continue
            members += 1
            first &= entry[row, rank]
            if arrival[row, rank] >= latest:
                second, latest, late = latest, arrival[row, rank], rank
            else:
                second = max(second, arrival[row, rank])
        if first and members > 1:
            meeting[found], final[found], gap[found] = row, late, latest - second
            found += 1
    return meeting[:found].copy(), final[:found].copy(), gap[:found].copy()
