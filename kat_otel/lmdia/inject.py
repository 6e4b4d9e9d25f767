"""Faults as edits of a program: what a sick part would change, and nothing else.

Only the times that a part owns are edited; the consequences (waits, late arrivals, longer
steps) come out of the replay. Each edit is labelled with what a detector should say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kat_otel.kernels import family
from kat_otel.lmdia.program import Mask, Program
from kat_otel.spans import SpanKind

__all__ = [
    "Fault",
    "Injected",
    "host_stall",
    "late_launches",
    "slow_collectives",
    "slow_copies",
    "slow_kernels",
    "slow_rank",
]

_HOST = ("host_cpu", "host_memory")


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """The truth about an injection.

    Attributes:
        kind: what it is, in the words of ``kat.report/v1``.
        also: kinds that describe the same physical fault as rightly.
        ranks: culprit ranks; empty if no rank differs from the others (the whole group is hit).
        components: components that a verdict may name; what traces alone cannot tell apart
            stands side by side.
        affected: bool ``(r, n)``, the operations whose own times were edited.
        text: one sentence for people.
    """

    kind: str
    also: tuple[str, ...]
    ranks: tuple[int, ...]
    components: tuple[str, ...]
    affected: Mask
    text: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every kind that counts as right."""
        return (self.kind, *self.also)


@dataclass(frozen=True, slots=True, eq=False)
class Injected:
    """A program with a fault in it, and the truth about it."""

    program: Program
    fault: Fault


def slow_rank(program: Program, rank: int, percent: float) -> Injected:
    """Makes every computing kernel of one rank ``percent`` slower: a throttled clock."""
    affected = _cells(program, rank, program.compute)
    return Injected(
        _scaled(program, affected, 1.0 + percent / 100.0),
        Fault(
            "slow_rank",
            (),
            (rank,),
            ("gpu_clock", "gpu_power", "gpu_compute"),
            affected,
            f"rank {rank}: every computing kernel {percent:g} % slower",
        ),
    )


def slow_kernels(program: Program, rank: int, operations: Sequence[int], factor: float) -> Injected:
    """Makes single kernels of one rank ``factor`` times as long.

    Raises:
        ValueError: an operation is not GPU work.
    """
    chosen = np.zeros(len(program), np.bool_)
    chosen[list(operations)] = True
    wrong = chosen & ~program.compute
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"operation {first} ({program.operations[first].name}) is not a kernel")
    affected = _cells(program, rank, chosen)
    names = ", ".join(sorted({family(program.operations[i].name) for i in operations}))
    return Injected(
        _scaled(program, affected, factor),
        Fault(
            "slow_kernel",
            (),
            (rank,),
            ("gpu_compute", "gpu_clock", "gpu_power", "hbm", "software", "unknown"),
            affected,
            f"rank {rank}: {len(operations)} kernels x{factor:g} ({names})",
        ),
    )


def late_launches(program: Program, rank: int, delay_ns: float, at: Sequence[int]) -> Injected:
    """Holds the host of one rank back by ``delay_ns`` before each operation of ``at``.

    Every later launch of the step comes late with it; the kernels themselves stay as they are.
    """
    held, affected = _held(program, rank, delay_ns, at)
    text = f"rank {rank}: launches {delay_ns / 1e6:g} ms late"
    return Injected(held, Fault("late_launch", ("stall",), (rank,), _HOST, affected, text))


def host_stall(program: Program, rank: int, stall_ns: float, at: int) -> Injected:
    """Stops the launches of one rank once, as a collector pause or page faults do.

    The same edit as one late launch: which of the two names fits is a matter of length.
    """
    held, affected = _held(program, rank, stall_ns, [at])
    text = f"rank {rank}: the host stops for {stall_ns / 1e6:g} ms"
    return Injected(held, Fault("stall", ("late_launch",), (rank,), _HOST, affected, text))


def slow_collectives(program: Program, factor: float) -> Injected:
    """Makes every collective's transfer ``factor`` times as long, on all ranks alike.

    No rank differs from its peers: only history can tell.
    """
    affected = np.where(program.collectives, program.present, False)
    return Injected(
        _scaled(program, affected, factor),
        Fault(
            "slow_transfer",
            ("regression",),
            (),
            ("nvlink", "nic", "software", "unknown"),
            affected,
            f"all ranks: every collective's transfer x{factor:g}",
        ),
    )


def slow_copies(program: Program, rank: int, factor: float) -> Injected:
    """Makes every copy of one rank ``factor`` times as long.

    Raises:
        ValueError: the program has no copies.
    """
    affected = _cells(program, rank, program.of_kind(SpanKind.MEMCPY))
    if not affected.any():
        raise ValueError(f"rank {rank} has no copies to slow down")
    return Injected(
        _scaled(program, affected, factor),
        Fault(
            "slow_copy",
            (),
            (rank,),
            ("pcie", "host_memory", "hbm", "unknown"),
            affected,
            f"rank {rank}: every copy x{factor:g}",
        ),
    )


def _cells(program: Program, rank: int, operations: Mask) -> Mask:
    cells = np.zeros_like(program.present)
    row = program.row_of(rank)
    cells[row] = operations & program.present[row]
    return cells


def _scaled(program: Program, affected: Mask, factor: float) -> Program:
    return program.with_times(own=np.where(affected, program.own * factor, program.own))


def _held(program: Program, rank: int, delay_ns: float, at: Sequence[int]) -> tuple[Program, Mask]:
    chosen = np.zeros(len(program), np.bool_)
    chosen[list(at)] = True
    affected = _cells(program, rank, chosen)
    gap = np.where(affected, program.gap + delay_ns, program.gap)
    return program.with_times(gap=gap), affected
