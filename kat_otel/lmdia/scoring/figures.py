"""From outcomes of single cases to the figures of a table, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kat_otel.lmdia.scoring.match import Outcome

__all__ = ["Figures", "Share", "figures", "upper_rate", "wilson"]

_Z: Final = 1.959964
"""Two-sided 95 % of a normal."""


@dataclass(frozen=True, slots=True)
class Share:
    """``hits`` of ``count``, with the interval in which the true share lies (95 %)."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        """The share; NaN of nothing."""
        return self.hits / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval."""
        return wilson(self.hits, self.count)

    def __str__(self) -> str:
        """Returns ``0.973 [0.95, 0.99]``; a dash of nothing."""
        if not self.count:
            return "-"
        low, high = self.interval
        return f"{self.value:.3f} [{low:.2f}, {high:.2f}]"


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a row of the table.

    Attributes:
        cases: how many it is about.
        precision: right alarms of all alarms that are right or false.
        recall: faults found.
        culprit: of faults with an alarm, those whose costliest names exactly the culprits.
        retrieved: of faults, those with a culprit among what was named.
        component, among: of found faults, see :mod:`kat_otel.lmdia.scoring.match`.
        span_precision: cited spans that the fault changed, pooled over faults.
        delay: median and worst delay of found faults, judged steps.
        fragments: right alarms per found fault.
        false_pages: over all cases.
    """

    cases: int
    precision: Share
    recall: Share
    culprit: Share
    retrieved: Share
    component: Share
    among: Share
    span_precision: Share
    delay: tuple[float, float]
    fragments: float
    false_pages: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN where one is of nothing."""
        p, r = self.precision.value, self.recall.value
        return 2 * p * r / (p + r) if p + r > 0 else math.nan if math.isnan(p + r) else 0.0


def figures(outcomes: Iterable[Outcome]) -> Figures:
    """Pools the outcomes of cases."""
    every = list(outcomes)
    faults = [f for o in every for f in o.faults]
    found = [f for f in faults if f.found]
    delays = [f.delay for f in found if f.delay is not None]
    right, false = sum(o.right for o in every), sum(o.false for o in every)
    return Figures(
        cases=len(every),
        precision=Share(right, right + false),
        recall=Share(len(found), len(faults)),
        culprit=_share(f.first for f in faults if f.asked),
        retrieved=_share(f.retrieved for f in faults),
        component=_share(f.component for f in found),
        among=_share(f.among for f in found),
        span_precision=Share(sum(f.hit for f in found), sum(f.cited for f in found)),
        delay=_delay(delays),
        fragments=sum(f.alarms for f in found) / len(found) if found else math.nan,
        false_pages=sum(o.false_pages for o in every),
    )


def _delay(delays: Sequence[int]) -> tuple[float, float]:
    if not delays:
        return math.nan, math.nan
    return float(np.median(delays)), float(max(delays))


def _share(said: Iterable[bool]) -> Share:
    every = list(said)
    return Share(sum(every), len(every))


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Returns the interval of a share (Wilson 1927), 95 %."""
    if not count:
        return 0.0, 1.0
    share, z2 = hits / count, _Z * _Z
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count * count))
    half /= 1 + z2 / count
    return max(0.0, middle - half), min(1.0, middle + half)


def upper_rate(events: int, exposure: float) -> float:
    """Returns the rate that a Poisson process hardly exceeds (one-sided 95 %), after ``events``.

    Exact: half the chi-square quantile with ``2 (events + 1)`` degrees of freedom (Garwood 1936),
    by bisection on the distribution function.
    """
    low, high = 0.0, 10.0 + 4.0 * events
    for _ in range(80):
        middle = (low + high) / 2
        terms = [
            math.exp(-middle + k * math.log(middle) - math.lgamma(k + 1)) if middle else 0.0
            for k in range(events + 1)
        ]
        low, high = (middle, high) if sum(terms) > 0.05 else (low, middle)
    return high / exposure
