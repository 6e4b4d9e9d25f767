"""Ranks as points in a space of features: isolation forest and Gaussian mixtures.

- Isolation forest (Liu, Ting, Zhou 2008), as the OpenTelemetry collector's
  ``isolationforestprocessor`` applies it: features of each item, a forest fitted to a window of
  the recent past, refitted as it moves, and a score that needs no labels.
- Gaussian mixtures, as eACGM (arXiv 2506.02007) and Truffld fit them to the features of healthy
  operation; what is unlikely under the mixture is an anomaly. Here the number of components is
  chosen by BIC.

Left out: the processor's adaptive window, and eACGM's features from eBPF that spans do not have.
"""

from __future__ import annotations

import importlib
from collections import deque
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import KatError
from kat_otel.lmdia.baselines.view import StepView

__all__ = ["GaussianMixtures", "IsolationForest"]

Float = NDArray[np.float64]

_PAST: Final = 32
_LEAST: Final = 8
_REFIT: Final = 8
_MOST: Final = 512
_SEED: Final = 0
_COMPONENTS: Final = (1, 2, 3)


class _Fitted:
    def __init__(self) -> None:
        self._past: deque[Float] = deque(maxlen=_PAST)
        self._model: Any = None
        self._since = 0

    def see(self, step: StepView) -> Float | None:
        if self._past and self._past[0].shape != step.machine.shape:
            self._past.clear()
            self._model = None
        if len(self._past) >= _LEAST and (self._model is None or self._since >= _REFIT):
            points = np.concatenate(self._past)
            rng = np.random.default_rng(_SEED)
            if len(points) > _MOST:
                points = points[rng.choice(len(points), _MOST, replace=False)]
            self._model, self._since = self._fit(points), 0
        self._past.append(step.machine)
        self._since += 1
        return None if self._model is None else self._score(self._model, step.machine)

    def _fit(self, points: Float) -> Any:
        raise NotImplementedError

    def _score(self, model: Any, points: Float) -> Float:
        raise NotImplementedError


class IsolationForest(_Fitted):
    """100 trees over the last 32 steps of all ranks; the score is the forest's own, in [0, 1]."""

    def _fit(self, points: Float) -> Any:
        forest: Any = _sklearn("ensemble").IsolationForest(n_estimators=100, random_state=_SEED)
        return forest.fit(points)

    def _score(self, model: Any, points: Float) -> Float:
        return -np.asarray(model.score_samples(points), np.float64)


class GaussianMixtures(_Fitted):
    """Negative log-likelihood under the mixture of the last 32 steps of all ranks."""

    def _fit(self, points: Float) -> Any:
        mixture: Any = _sklearn("mixture").GaussianMixture
        fits = [
            mixture(n, covariance_type="diag", reg_covar=1e-6, random_state=_SEED).fit(points)
            for n in _COMPONENTS
        ]
        return min(fits, key=lambda fit: fit.bic(points))

    def _score(self, model: Any, points: Float) -> Float:
        return -np.asarray(model.score_samples(points), np.float64)


def _sklearn(module: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise KatError(
            "this method needs 'scikit-learn', which is not installed: "
            "pip install 'kat-otel[lmdia]'"
        ) from error
