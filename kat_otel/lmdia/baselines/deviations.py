"""Each kernel's time against its own past: z-scores, and the same with medians.

The z-score is what dashboards do by hand (mean and standard deviation of a kernel's time);
the modified z-score is that of Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993).
Both look at the time that a rank spends in a kernel family in a step, collectives too.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.lmdia.baselines.view import StepView

__all__ = ["ModifiedZScore", "ZScore"]

Float = NDArray[np.float64]

_PAST: Final = 32
_LEAST: Final = 8
_MODIFIED: Final = 0.6745
_FLOOR: Final = 1e-3
"""Smallest spread, as a share of the usual time: that of a constant is no measure."""


class _AgainstThePast:
    def __init__(self) -> None:
        self._past: defaultdict[str, deque[Float]] = defaultdict(lambda: deque(maxlen=_PAST))

    def see(self, step: StepView) -> Float | None:
        scores = np.zeros(len(step.ranks))
        judged = False
        for at, name in enumerate(step.families):
            past = self._past[name]
            now = step.totals[at]
            if len(past) >= _LEAST and past[0].shape == now.shape:
                judged = True
                scores = np.maximum(scores, self._deviation(now, np.stack(past)))
            if past and past[0].shape != now.shape:
                past.clear()
            past.append(now)
        return scores if judged else None

    def _deviation(self, now: Float, past: Float) -> Float:
        raise NotImplementedError


class ZScore(_AgainstThePast):
    """Standard deviations above the mean of the last 32 steps, the largest over kernels."""

    def _deviation(self, now: Float, past: Float) -> Float:
        spread = np.maximum(past.std(axis=0), _FLOOR * past.mean(axis=0) + 1.0)
        return (now - past.mean(axis=0)) / spread


class ModifiedZScore(_AgainstThePast):
    """The same with median and median absolute deviation."""

    def _deviation(self, now: Float, past: Float) -> Float:
        middle = np.median(past, axis=0)
        spread = np.maximum(np.median(np.abs(past - middle), axis=0), _FLOOR * middle + 1.0)
        return _MODIFIED * (now - middle) / spread
