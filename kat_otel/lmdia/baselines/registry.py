"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kat_otel.lmdia.baselines.deviations import ModifiedZScore, ZScore
from kat_otel.lmdia.baselines.judgement import Baseline, Follower
from kat_otel.lmdia.baselines.machines import Eroica, Minder
from kat_otel.lmdia.baselines.outliers import GaussianMixtures, IsolationForest
from kat_otel.lmdia.baselines.times import Greyhound, LongestCollective

__all__ = ["BASELINES", "followers"]

BASELINES: Final[Mapping[str, Callable[[], Baseline]]] = {
    "z-score": ZScore,
    "MAD": ModifiedZScore,
    "isolation forest": IsolationForest,
    "Gaussian mixtures": GaussianMixtures,
    "Minder": Minder,
    "Greyhound": Greyhound,
    "HTA": LongestCollective,
    "EROICA": Eroica,
}
"""Re-implementations: what each follows and leaves out is said where it is written."""


def followers() -> dict[str, Follower]:
    """Returns all methods, ready to follow one case."""
    return {name: Follower(method()) for name, method in BASELINES.items()}
