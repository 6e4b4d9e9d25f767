"""Step times that change, and collectives that wait: Greyhound's change points, HTA's stragglers.

- Greyhound (FALCON, arXiv 2410.12588): Bayesian online change-point detection (Adams and MacKay
  2007) on the time of an iteration says when a fail-slow begins; then groups are profiled, and
  the rank that computes longest against its peers is named, or a link if none does.
- HTA (Holistic Trace Analysis): ranks that wait for a straggler are long in their collectives, the
  straggler itself is short. Its time saved by being last, over the step, is the score.

Left out: Greyhound's validation runs, which a tool that only reads traces cannot order.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.lmdia.baselines.view import FEATURES, StepView

__all__ = ["Greyhound", "LongestCollective"]

Float = NDArray[np.float64]

_HAZARD: Final = 1.0 / 100.0
_MOST_RUNS: Final = 64
_PAST: Final = 32
_LEAST: Final = 8
_KERNELS: Final = FEATURES.index("kernels")


class Greyhound:
    """By how much steps are longer since the last change point; named by computing time."""

    def __init__(self) -> None:
        self._points = _ChangePoints()
        self._past: deque[float] = deque(maxlen=_PAST)
        self._before = math.nan

    def see(self, step: StepView) -> Float | None:
        """Returns, since a change for the worse, the share by which each rank is to blame."""
        time = math.log(max(step.length_ns, 1.0))
        changed = self._points.add(time)
        if changed and len(self._past) >= _LEAST:
            self._before = float(np.median(self._past))
            self._past.clear()
        self._past.append(time)
        scores = np.zeros(len(step.ranks))
        if math.isnan(self._before):
            return scores if len(self._past) >= _LEAST else None
        slower = float(np.median(self._past)) - self._before
        if slower <= 0:
            return scores
        compute = step.machine[:, _KERNELS]
        behind = compute - np.median(compute)
        if behind.max() > slower / 4:  # somebody computes longer: it is that rank
            return slower * (behind > behind.max() / 2)
        return np.full(len(step.ranks), slower)  # a link: nobody in particular


class _ChangePoints:
    """Run lengths of a normal process with unknown mean and variance, most likely last."""

    def __init__(self) -> None:
        self._log_p = np.zeros(1)
        self._mean, self._kappa = np.zeros(1), np.full(1, 0.01)
        self._alpha, self._beta = np.full(1, 1.0), np.full(1, 1e-4)
        self._first = True

    def add(self, x: float) -> bool:
        """Takes a value; returns whether the run has just begun anew."""
        if self._first:
            self._mean[:] = x
            self._first = False
        before = int(np.argmax(self._log_p))
        scale = self._beta * (self._kappa + 1) / (self._alpha * self._kappa)
        freedom = 2 * self._alpha
        lgamma = np.vectorize(math.lgamma)
        log_t = (
            lgamma((freedom + 1) / 2)
            - lgamma(freedom / 2)
            - 0.5 * np.log(freedom * np.pi * scale)
            - (freedom + 1) / 2 * np.log1p((x - self._mean) ** 2 / (freedom * scale))
        )
        grown = self._log_p + log_t + math.log1p(-_HAZARD)
        begun = float(np.logaddexp.reduce(self._log_p + log_t)) + math.log(_HAZARD)
        log_p = np.concatenate([[begun], grown])
        log_p -= np.logaddexp.reduce(log_p)
        mean = (self._kappa * self._mean + x) / (self._kappa + 1)
        beta = self._beta + self._kappa * (x - self._mean) ** 2 / (2 * (self._kappa + 1))
        self._log_p = log_p[:_MOST_RUNS]
        self._mean = np.concatenate([[x], mean])[:_MOST_RUNS]
        self._beta = np.concatenate([[1e-4], beta])[:_MOST_RUNS]
        self._kappa = np.concatenate([[0.01], self._kappa + 1])[:_MOST_RUNS]
        self._alpha = np.concatenate([[1.0], self._alpha + 0.5])[:_MOST_RUNS]
        now = int(np.argmax(self._log_p))
        return now < before


class LongestCollective:
    """For each rank the waiting that its lateness makes, as a share of the step."""

    def see(self, step: StepView) -> Float | None:
        """Returns the scores of one step; nothing is remembered."""
        if not len(step.collectives):
            return None
        duration = step.collectives
        there = ~np.isnan(duration)
        several = there.sum(axis=1) > 1
        if not several.any():
            return None
        duration = duration[several]
        longest = np.nanmax(duration, axis=1)
        last = np.nanargmin(duration, axis=1)
        saved = np.zeros(len(step.ranks))
        np.add.at(saved, last, longest - np.nanmin(duration, axis=1))
        return saved / max(step.length_ns, 1.0)
