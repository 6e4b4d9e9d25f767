"""The spread of a healthy program's times, as fitted to real traces.

Every kind of time has a spread: the logarithm of (time / expected time), as an inverse
distribution function through measured quantiles, so that real tails stay in. The fit and
the traces behind the figures are in :mod:`kat_otel.lmdia.fit_noise`
and :mod:`kat_otel.lmdia.fitted`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kat_otel.lmdia.program import Floats, Mask, Program
from kat_otel.spans import SpanKind

__all__ = [
    "PROBABILITIES",
    "Classes",
    "LengthClass",
    "NoiseModel",
    "Spread",
    "disturb",
    "draw_standing",
]

PROBABILITIES = (0.0, 0.005, 0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975, 0.995, 1.0)
"""Where the quantiles of a :class:`Spread` are taken."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Quantiles of log(time / expected) at :data:`PROBABILITIES`."""

    quantiles: tuple[float, ...]

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Returns independent draws of the logarithm."""
        return np.interp(rng.random(shape), PROBABILITIES, self.quantiles)


@dataclass(frozen=True, slots=True)
class LengthClass:
    """Times of similar length vary alike.

    Attributes:
        below_ns: the class holds times shorter than this (and not in an earlier class).
        longest_ns: the longest time it was fitted to. Beyond it the logarithm shrinks with the
            square root of the length, as for a sum of independent pieces: a disturbance does
            not grow with what it disturbs.
        spread: of one execution on one rank.
        standing: standard deviation, over ranks, of the logarithm that stays from step to step.
    """

    below_ns: float
    longest_ns: float
    spread: Spread
    standing: float = 0.0


Classes = tuple[LengthClass, ...]


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """Spreads of all times of a program. See the module for where they come from."""

    kernels: Classes
    gap: Classes
    call: Classes
    latency: Classes
    transfer: Classes
    start_ns: float
    """Standard deviation of a rank's start of the step (ns)."""


def draw_standing(program: Program, model: NoiseModel, rng: np.random.Generator) -> Floats:
    """Returns how much each rank's GPU differs for good, log ``(r, n)``: once an instance."""
    standing = np.zeros(program.present.shape)
    index = _class_of(program.own, model.kernels)
    for number, kernels in enumerate(model.kernels):
        draw = rng.normal(0.0, kernels.standing, program.ranks)
        standing += np.where(index == number, draw[:, None], 0.0)
    return standing * _on_gpu_alone(program)


def disturb(
    program: Program, model: NoiseModel, rng: np.random.Generator, standing: Floats | None = None
) -> Program:
    """Returns the program with one step's noise on every time a rank owns.

    A collective's transfer is one event for its group and gets one draw; everything else is
    independent between ranks.
    """
    kernels = _logs(program.own, model.kernels, rng)
    if standing is not None:
        kernels += standing
    # One draw for the ranks of a collective, whose transfers may differ in length all the same.
    transfer = np.tile(
        _logs(program.own.max(axis=0, keepdims=True), model.transfer, rng), (program.ranks, 1)
    )
    own = np.where(program.collectives, transfer, kernels * _on_gpu_alone(program))
    return program.with_times(
        start=program.start + np.abs(rng.normal(0.0, model.start_ns, program.ranks)),
        gap=program.gap * np.exp(_logs(program.gap, model.gap, rng)),
        call=program.call * np.exp(_logs(program.call, model.call, rng)),
        latency=program.latency * np.exp(_logs(program.latency, model.latency, rng)),
        own=program.own * np.exp(own),
    )


def _logs(times: Floats, classes: Classes, rng: np.random.Generator) -> Floats:
    """Returns one draw of log(time / expected) for each of ``times``, of their shape."""
    index = _class_of(times, classes)
    logs = np.zeros(times.shape)
    for number, alike in enumerate(classes):
        shrink = np.sqrt(alike.longest_ns / np.maximum(times, alike.longest_ns))
        logs += np.where(index == number, alike.spread.sample(rng, times.shape) * shrink, 0.0)
    return logs


def _class_of(times: Floats, classes: Classes) -> NDArray[np.int64]:
    bounds = np.array([alike.below_ns for alike in classes])
    return np.minimum(np.searchsorted(bounds, times, side="right"), len(bounds) - 1)


def _on_gpu_alone(program: Program) -> Mask:
    """Returns which operations are GPU work without other ranks, bool ``(n,)``."""
    return program.of_kind(SpanKind.KERNEL, SpanKind.MEMCPY, SpanKind.MEMSET)
