"""Semi-synthetic groups: healthy programs of several ranks made from real traces.

No real trace of a healthy tensor-parallel group with all its ranks is at hand, so the
kernels, their order, their times and the collectives' transfers come from real ones, and
the differences between the ranks from :mod:`kat_otel.lmdia.noise`. Whoever shows a figure from
these must say that they are semi-synthetic; ``Program.notes`` says it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kat_otel.kernels import Semantics, family
from kat_otel.lmdia.program import Floats, Mask, Program
from kat_otel.spans import UNKNOWN, Resource

__all__ = ["cloned", "without_lateness"]

_TRANSFER_QUANTILE = 0.25
"""Of a collective's durations on one rank: the long ones contain waiting for other ranks."""


def without_lateness(program: Program) -> Program:
    """Returns a program whose ranks do the same at the same time: the extracted one, healed.

    Operations that some ranks lack are left out; each host and kernel time is the median over
    the ranks; a collective's transfer is the shortest that any rank saw; all ranks start at once.

    Raises:
        ValueError: the program has one rank only.
    """
    if program.ranks < 2:
        raise ValueError("one rank has no peers to take a median with: use cloned()")
    common: Mask = np.all(program.present, axis=0)
    program = _kept(program, common)

    def middle(times: Floats) -> Floats:
        return np.tile(np.median(times, axis=0), (program.ranks, 1))

    collectives = program.collectives
    shortest = np.maximum(program.own, 0.0).min(axis=0)
    return replace(
        program,
        start=np.zeros(program.ranks),
        gap=middle(program.gap),
        call=middle(program.call),
        latency=middle(program.latency),
        dispatch=middle(program.dispatch),
        own=np.where(collectives, shortest, middle(program.own)),
        notes=("semi-synthetic: a real trace with its lateness removed",),
    )


def cloned(program: Program, resources: tuple[Resource, ...]) -> Program:
    """Returns a group of ranks that all do what one real rank did.

    Args:
        program: of one rank.
        resources: who the ranks of the group are.

    Raises:
        ValueError: the program has several ranks.
    """
    if program.ranks != 1:
        raise ValueError(f"cloned() takes one rank's program, this one has {program.ranks}")
    count = len(resources)

    def everywhere(times: Floats) -> Floats:
        return np.tile(times, (count, 1))

    return replace(
        program,
        resources=resources,
        present=np.ones((count, len(program)), np.bool_),
        start=np.zeros(count),
        gap=everywhere(program.gap),
        call=everywhere(program.call),
        latency=everywhere(program.latency),
        dispatch=everywhere(program.dispatch),
        own=everywhere(_transfers(program)),
        notes=(f"semi-synthetic: one real rank cloned to {count}",),
    )


def _transfers(program: Program) -> Floats:
    """Returns the own times ``(1, n)`` with each collective's waiting cut off.

    Collectives of one family and launch shape move the same amount in a model of equal layers:
    none takes longer than the lower quartile of its like unless it waited.
    """
    own = program.own.copy()
    alike: dict[tuple[str, str, int], list[int]] = {}
    for i, op in enumerate(program.operations):
        if op.semantics != Semantics.NONE:
            alike.setdefault((family(op.name), op.grid, op.nbytes), []).append(i)
    for places in alike.values():
        own[0, places] = np.minimum(own[0, places], np.quantile(own[0, places], _TRANSFER_QUANTILE))
    return own


def _kept(program: Program, keep: Mask) -> Program:
    """Returns the program with some operations only; waits for others are forgotten."""
    places = np.full(len(program) + 1, UNKNOWN)  # the last is for UNKNOWN itself
    places[:-1][keep] = np.arange(np.count_nonzero(keep))
    operations = tuple(
        replace(
            op,
            after=tuple(int(places[j]) for j in op.after if keep[j]),
            graph_launch=int(places[op.graph_launch]),
        )
        for op, kept in zip(program.operations, keep, strict=True)
        if kept
    )
    return replace(
        program,
        operations=operations,
        present=program.present[:, keep],
        grid=None if program.grid is None else program.grid[:, keep],
        gap=program.gap[:, keep],
        call=program.call[:, keep],
        latency=program.latency[:, keep],
        dispatch=program.dispatch[:, keep],
        own=program.own[:, keep],
    )
