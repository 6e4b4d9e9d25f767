"""What looks like a fault and is none: what changes, and what may be said of it.

Three sorts, by what they change: the work that the scheduler gives, the program that runs, or the
table that a collector gets. Each lasts as many judged steps as it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from kat_otel.lmdia.label import Allowed
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.tasks.task import Work
from kat_otel.spans import SpanKind, SpanTable
from kat_otel.verdict import Component, Kind

__all__ = ["CONFOUNDERS", "Confounder"]

Rng = np.random.Generator


def _same_work(work: Work, step: int) -> Work:
    del step
    return work


def _same_program(program: Program, row: int, step: int, rng: Rng) -> Program:
    del row, step, rng
    return program


def _same_table(table: SpanTable, row: int, step: int, rng: Rng) -> SpanTable:
    del row, step, rng
    return table


@dataclass(frozen=True, slots=True)
class Confounder:
    """Something harmless.

    Attributes:
        name: in the words of the field.
        text: what happens.
        work, program, table: what it changes, given how many judged steps it has lasted, and for
            the last two a row of the program (the rank it happens to, if it is one).
        lasting: judged steps.
        from_start: whether it happens in the first steps of all, with nothing learnt yet.
        kinds, components: what may be said of it; nothing if there are none.
        of_row: whether only the row may be named.
        needs_work: whether it needs a scheduler: real traces have none.
        needs_experts: whether it needs experts that are spread over ranks.
    """

    name: str
    text: str
    work: Callable[[Work, int], Work] = _same_work
    program: Callable[[Program, int, int, Rng], Program] = _same_program
    table: Callable[[SpanTable, int, int, Rng], SpanTable] = _same_table
    lasting: int = 20
    from_start: bool = False
    kinds: tuple[Kind, ...] = ()
    components: tuple[Component, ...] = ()
    of_row: bool = False
    needs_work: bool = False
    needs_experts: bool = False

    def allowed(self, rank: int) -> tuple[Allowed, ...]:
        """Returns what may be said, ``rank`` being the one it happens to."""
        if not self.kinds:
            return ()
        ranks = (rank,) if self.of_row else None
        return (Allowed(kinds=self.kinds, components=self.components, ranks=ranks),)


def _larger_batch(work: Work, step: int) -> Work:
    del step
    return replace(
        work, prompt_tokens=work.prompt_tokens * 3 // 2, sequences=work.sequences * 3 // 2
    )


def _longer_context(work: Work, step: int) -> Work:
    del step
    return replace(work, context=work.context * 2)


def _uneven_experts(work: Work, step: int) -> Work:
    del step
    return replace(work, expert_load=1.8)


def _warm_up(program: Program, row: int, step: int, rng: Rng) -> Program:
    """Graphs are captured and kernels compiled: every rank's host is slow, each a little else."""
    del row
    factor = 1.0 + 30.0 / 4.0**step
    more = factor * rng.uniform(0.95, 1.05, (program.ranks, 1))
    return replace(program, gap=np.maximum(program.gap, 0) * more, call=program.call * more)


def _autotuning(program: Program, row: int, step: int, rng: Rng) -> Program:
    """Variants of the largest kernel are tried on all ranks: it runs four times as long, once."""
    del row, rng
    if step:
        return program
    kernels = program.compute
    largest = int(np.argmax(np.where(kernels, program.own.max(axis=0), 0.0)))
    name = program.operations[largest].name
    tried = np.array([op.name == name for op in program.operations]) & kernels
    first = np.flatnonzero(tried)[:3]
    own = program.own.copy()
    own[:, first] *= 4.0
    return replace(program, own=own)


def _collection(program: Program, row: int, step: int, rng: Rng) -> Program:
    """The interpreter collects garbage on one rank: its host stops once, for a third of a step."""
    if step:
        return program
    calls = np.flatnonzero(
        np.array([op.call != "" for op in program.operations]) & program.present[row]
    )
    gap = program.gap.copy()
    gap[row, int(rng.choice(calls))] += 0.3 * float(program.own[row].sum())
    return replace(program, gap=gap)


def _restart(table: SpanTable, row: int, step: int, rng: Rng) -> SpanTable:
    """A rank starts anew: its first steps are not captured."""
    return _without(table, row, step, rng) if step < _RESTART else table


def _without(table: SpanTable, row: int, step: int, rng: Rng) -> SpanTable:
    del step, rng
    return table.take(table.resource != row)


def _offset(table: SpanTable, row: int, step: int, rng: Rng) -> SpanTable:
    """The clock of one host jumps by 3 ms."""
    del step, rng
    host = table.resources[row].host
    others = any(r.host != host for r in table.resources)
    mine = np.array([r.host == host if others else n == row for n, r in enumerate(table.resources)])
    shift = np.where(mine[table.resource], _OFFSET_NS, 0)
    return table.with_columns(start_ns=table.start_ns + shift)


def _drops(table: SpanTable, row: int, step: int, rng: Rng) -> SpanTable:
    """A full buffer: one rank loses a twentieth of its GPU work."""
    del step
    work = (table.resource == row) & (table.kind == SpanKind.KERNEL)
    return table.take(~(work & (rng.random(len(table)) < _DROPPED)))


_RESTART: Final = 3
_OFFSET_NS: Final = 3_000_000
_DROPPED: Final = 0.05
_HOST: Final[tuple[Component, ...]] = ("host_cpu", "host_memory", "software")

CONFOUNDERS: Final[Mapping[str, Confounder]] = {
    confounder.name: confounder
    for confounder in (
        Confounder(
            name="batch_change",
            text="the batch is half as large again",
            work=_larger_batch,
            needs_work=True,
        ),
        Confounder(
            name="sequence_length_change",
            text="contexts are twice as long",
            work=_longer_context,
            needs_work=True,
        ),
        Confounder(
            name="expert_imbalance",
            text="in every layer one expert rank has 1.8 times the mean load",
            work=_uneven_experts,
            needs_work=True,
            needs_experts=True,
            kinds=("imbalance",),
            components=("software",),
        ),
        Confounder(
            name="warm_up",
            text="graphs are captured and kernels compiled in the first steps",
            program=_warm_up,
            lasting=4,
            from_start=True,
        ),
        Confounder(
            name="autotuning",
            text="variants of a kernel are tried in one step, on all ranks",
            program=_autotuning,
            lasting=1,
            kinds=("regression",),
            components=("software",),
        ),
        Confounder(
            name="garbage_collection",
            text="the interpreter of one rank collects garbage in one step",
            program=_collection,
            lasting=1,
            kinds=("stall", "late_launch"),
            components=_HOST,
            of_row=True,
        ),
        Confounder(
            name="rank_restart",
            text="a rank starts anew and sends nothing for three steps",
            table=_restart,
            lasting=_RESTART,
            kinds=("structure",),
            components=("software", "unknown"),
        ),
        Confounder(
            name="clock_offset",
            text="the clock of one host jumps by 3 ms",
            table=_offset,
        ),
        Confounder(
            name="dropped_spans",
            text="one rank loses a twentieth of its kernels' spans",
            table=_drops,
            kinds=("structure",),
            components=("software", "unknown"),
        ),
        Confounder(
            name="missing_rank",
            text="one rank sends nothing",
            table=_without,
            kinds=("structure",),
            components=("software", "unknown"),
        ),
    )
}
"""By name."""
