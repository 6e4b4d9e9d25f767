"""What the scheduler gives each step of a task: the same for everybody who asks with its seed.

Judged steps are samples of serving (:mod:`kat_otel.lmdia.dataset.play`), so that neighbours have
about the same batch: sequences come and go in the sizes that CUDA graphs are captured for,
contexts drift, and experts' loads are drawn anew each step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from kat_otel.lmdia.tasks.task import Load, Task, Work

__all__ = ["schedule"]

_BATCH: Final[Mapping[Load, int]] = {"prefill": 0, "decode": 64, "mixed": 48}
_CHUNK: Final[Mapping[Load, int]] = {"prefill": 8192, "decode": 0, "mixed": 2048}
_CONTEXT: Final[Mapping[Load, int]] = {"prefill": 4096, "decode": 3072, "mixed": 2048}
_LATENTS: Final[Mapping[Load, int]] = {"prefill": 75_600, "decode": 14_040, "mixed": 32_760}
"""Of Wan: 81 frames of 1280 x 720, 33 of 832 x 480, 81 of 832 x 480; 8 x 8 x 4 pixels a latent,
2 x 2 latents a token."""

_BUCKET: Final = 8
"""Sequences are padded to a multiple, as CUDA graphs are captured."""

_STAY: Final = 64
"""Judged steps over which a batch keeps its size: some minutes of steady load."""

_DRIFT: Final = 0.03
_IMBALANCE: Final = 0.12
"""Standard deviation of the busiest expert rank's load above even."""

_REPLICAS: Final = 0.05
"""Standard deviation of a replica's tokens."""


def schedule(task: Task, seed: int) -> Callable[[int], Work]:
    """Returns the work of each step, by its number among the judged ones.

    Args:
        task: whose load.
        seed: of this run of it.
    """

    def work(step: int) -> Work:
        rng = np.random.default_rng([seed, 7, step])
        long = np.random.default_rng([seed, 11, (step + seed % _STAY) // _STAY])
        if task.model.kind == "diffusion":  # every denoising step of a video is the same work
            return Work(prompt_tokens=_LATENTS[task.load], sequences=0, context=0)
        batch, ep = _BATCH[task.load], task.layout.ep
        sequences = batch + _BUCKET * int(long.integers(-1, 2)) if batch else 0
        phase = 2 * math.pi * step / 97
        context = int(_CONTEXT[task.load] * (1 + _DRIFT * math.sin(phase)))
        return Work(
            prompt_tokens=_CHUNK[task.load],
            sequences=sequences,
            context=context,
            expert_load=round(1 + abs(float(rng.normal(0, _IMBALANCE))), 3) if ep > 1 else 1.0,
            busiest=int(rng.integers(ep)),
            replicas=_shares(task.layout.dp, rng),
        )

    return work


def _shares(replicas: int, rng: np.random.Generator) -> tuple[float, ...]:
    if replicas == 1:
        return ()
    shares = 1 + rng.normal(0, _REPLICAS, replicas)
    return tuple(round(float(share), 3) for share in shares / shares.mean())
