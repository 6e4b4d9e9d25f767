"""Machines against each other: Minder's similarity, EROICA's differencing of functions.

- Minder (arXiv 2411.01791): healthy machines of one task look alike. For each metric the
  distances of every machine to all others are summed; the machine whose sum stands out by its
  normal score is the candidate, and only one that stays the same over consecutive windows is
  reported. Its auto-encoders, which take noise off a metric, are a moving median here.
- EROICA (arXiv 2506.08528): each worker's behaviour in each function (its share of the step, the
  mean length of a call) is compared with that of the other workers; the worker whose pattern is
  farther from the others' than theirs among each other is named. Its low-level counters (SM and
  link utilisation) are not in spans and are left out.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.lmdia.baselines.view import StepView

__all__ = ["Eroica", "Minder"]

Float = NDArray[np.float64]

_WINDOW: Final = 3
_CONTINUITY: Final = 2
_FLOOR: Final = 1e-3


class Minder:
    """Normal score of the summed distances to the other machines, over the metrics the largest."""

    def __init__(self) -> None:
        self._past: deque[Float] = deque(maxlen=_WINDOW)
        self._last: list[int] = []

    def see(self, step: StepView) -> Float | None:
        """Returns the candidates' scores; 0 of those that were not it in the windows before."""
        if len(step.ranks) < 3:  # two machines are as far from each other
            return None
        if self._past and self._past[0].shape != step.machine.shape:
            self._past.clear()
        self._past.append(step.machine)
        smooth = np.median(np.stack(self._past), axis=0)
        sums = np.abs(smooth[:, None, :] - smooth[None, :, :]).sum(axis=1)
        spread = np.maximum(sums.std(axis=0), _FLOOR)
        score = ((sums - sums.mean(axis=0)) / spread).max(axis=1)
        candidate = int(np.argmax(score))
        self._last = [*self._last, candidate][-_CONTINUITY:]
        stays = len(self._last) == _CONTINUITY and set(self._last) == {candidate}
        return np.where((np.arange(len(score)) == candidate) & stays, score, 0.0)


class Eroica:
    """Distance of a worker's function patterns from the others', in their own distances."""

    def see(self, step: StepView) -> Float | None:
        """Returns the scores of one step; nothing is remembered."""
        if len(step.ranks) < 3:
            return None
        share = step.totals / max(step.length_ns, 1.0)
        mean = np.log(np.maximum(step.totals, 1.0) / np.maximum(step.counts, 1.0))
        scores = np.zeros(len(step.ranks))
        for pattern in (share, mean * np.minimum(share, 0.1)):
            middle = np.median(pattern, axis=1, keepdims=True)
            distance = np.abs(pattern - middle)
            usual = np.median(distance, axis=1, keepdims=True)
            beyond = (distance - usual) / np.maximum(usual, _FLOOR)
            scores = np.maximum(scores, beyond.max(axis=0))
        return scores
