"""The threshold of a method, chosen on validation cases alone: the one with the best F1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from kat_otel.lmdia.baselines.judgement import Scored, alarms
from kat_otel.lmdia.label import Label
from kat_otel.lmdia.scoring.figures import figures
from kat_otel.lmdia.scoring.match import Outcome, score

__all__ = ["Chosen", "choose", "outcomes"]

_CANDIDATES: Final = 60

Judged = tuple[Label, Scored]
"""A case, and what a method scored on it."""

Chosen = tuple[float, float]
"""A threshold, and the F1 that it has on the cases that it was chosen on."""


def choose(cases: Sequence[Judged]) -> Chosen:
    """Returns the threshold with the best F1 over some cases; infinity if nothing was scored."""
    tops = np.array([s.scores[0] for _, scored in cases for s in scored if s.scores])
    if not len(tops):
        return math.inf, 0.0
    candidates = np.unique(np.quantile(tops, np.linspace(0.3, 1.0, _CANDIDATES)))
    best = max(candidates.tolist(), key=lambda t: (_f1(outcomes(cases, t)), t))
    return float(best), _f1(outcomes(cases, best))


def outcomes(cases: Sequence[Judged], threshold: float) -> list[Outcome]:
    """Returns what a method makes of cases at a threshold."""
    return [score(label, alarms(scored, threshold, label.steps)) for label, scored in cases]


def _f1(found: Sequence[Outcome]) -> float:
    value = figures(found).f1
    return 0.0 if math.isnan(value) else value
