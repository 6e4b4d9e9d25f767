"""Steps one after the other: a program, its noise and its faults as a recording of spans.

Everything follows from the seed and the step's number alone, so that the workers of a
simulated group agree on what happened without talking to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kat_otel.identity import nonce_of
from kat_otel.lmdia.fitted import FITTED
from kat_otel.lmdia.noise import NoiseModel, disturb, draw_standing
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.replay import Times, simulate
from kat_otel.lmdia.table import to_table
from kat_otel.spans import SpanTable, concat

__all__ = ["Group", "record"]

ZERO_UNIX_NS = 1_767_225_600_000_000_000
"""2026-01-01, where recordings begin unless told otherwise: the same in every run."""

_PAUSE_NS = 200_000


@dataclass(frozen=True, slots=True)
class Group:
    """A simulated instance: what its ranks run, how much they vary, and the seed of it all."""

    program: Program
    seed: int
    noise: NoiseModel = FITTED

    def play(self, step: int, program: Program | None = None) -> tuple[Program, Times]:
        """Returns one step as it happened: the program with its noise, and its times.

        Args:
            step: its number.
            program: what to run instead of the healthy program (with a fault in it).
        """
        program = program or self.program
        # Standing differences between GPUs are drawn once an instance: the same seed gives them
        # back, whatever the step runs.
        standing = draw_standing(program, self.noise, np.random.default_rng([self.seed]))
        rng = np.random.default_rng([self.seed, 1 + step])
        noisy = disturb(program, self.noise, rng, standing)
        return noisy, simulate(noisy)


def record(
    group: Group,
    steps: Sequence[int],
    *,
    program_at: Callable[[int], Program] | None = None,
    zero_unix_ns: int = ZERO_UNIX_NS,
) -> SpanTable:
    """Returns the spans of all ranks over some steps, which follow each other closely.

    Args:
        group: what runs.
        steps: numbers of the steps, ascending.
        program_at: what a step runs, for faults that come and go; the healthy program if None.
        zero_unix_ns: when the first step begins.
    """
    nonce = nonce_of(group.program.resources[0].instance or f"recording {group.seed}")
    tables: list[SpanTable] = []
    zero = zero_unix_ns
    for step in steps:
        noisy, times = group.play(step, program_at(step) if program_at else None)
        tables.append(to_table(noisy, times, step=step, zero_unix_ns=zero, nonce=nonce))
        zero += int(times.step_ns) + _PAUSE_NS
    return _one_resource_per_rank(tables, group.program.ranks)


def _one_resource_per_rank(tables: Sequence[SpanTable], ranks: int) -> SpanTable:
    """Joins the steps; the resources, repeated in every step, are said once."""
    whole = concat(tables)
    return replace(
        whole,
        resources=whole.resources[:ranks],
        resource=(whole.resource % ranks).astype(np.int32),
    )
