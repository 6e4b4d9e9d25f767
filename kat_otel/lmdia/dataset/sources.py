"""Where steps come from: the benchmark's tasks, and groups made of real traces."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from kat_otel.lmdia.dataset.plan import Subject
from kat_otel.lmdia.decode import workers
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.real import RANKS, groups
from kat_otel.lmdia.scenarios.confounders import CONFOUNDERS
from kat_otel.lmdia.scenarios.faults import SCENARIOS
from kat_otel.lmdia.tasks.catalog import TASKS
from kat_otel.lmdia.tasks.step import resources, step_program
from kat_otel.lmdia.tasks.task import Split, Task, Work
from kat_otel.lmdia.tasks.work import schedule
from kat_otel.spans import Resource

__all__ = ["REAL", "Change", "Source", "real_sources", "subject_of", "task_sources"]

REAL: Final = "real"
"""First word of the names of sources made of real traces."""

_KEPT: Final = 64
"""Programs remembered while steps are played: the same work comes again."""


Change = Callable[[Work, int], Work]
"""What a step's work becomes, by its number."""


@dataclass(frozen=True, slots=True)
class Source:
    """What faults are put into.

    Attributes:
        name: of the task, or ``real.`` and a trace's.
        split: what it may be used for.
        resources: the ranks.
        begin: given a seed, returns the healthy program of each step by its number; the work of
            its scheduler may be changed before.
        notes: how it was made.
        scheduled: whether a scheduler gives its steps their work.
        experts: whether it has experts that are spread over ranks.
    """

    name: str
    split: Split
    resources: tuple[Resource, ...]
    begin: Callable[[int, Change | None], Callable[[int], Program]]
    notes: tuple[str, ...] = ()
    scheduled: bool = False
    experts: bool = False


def task_sources() -> Mapping[str, Source]:
    """Returns the benchmark's tasks as sources, by name."""
    return {task.name: _of_task(task) for task in TASKS}


def real_sources(folder: Path) -> Mapping[str, Source]:
    """Returns the groups of the real traces in a folder as sources, by name: all are for testing.

    Each of their steps runs the same work. Half of the ranks are on each of two hosts.
    """
    fleet = tuple(
        replace(worker, host=f"node-{worker.rank // (RANKS // 2)}", device=worker.rank % 4)
        for worker in workers(RANKS, instance=REAL)
    )
    found: dict[str, Source] = {}
    for trace, program in groups(folder, fleet).items():
        name = f"{REAL}.{trace}"
        found[name] = Source(name, "test", fleet, _always(program), program.notes)
    return found


def _of_task(task: Task) -> Source:
    @functools.lru_cache(_KEPT)
    def program(work: Work) -> Program:
        return step_program(task, work)

    def begin(seed: int, change: Change | None) -> Callable[[int], Program]:
        work = schedule(task, seed)
        return lambda step: program(change(work(step), step) if change else work(step))

    layout = task.layout
    note = (
        f"{task.engine} on {layout.ranks} {task.gpu.name}, TP {layout.tp}, PP {layout.pp}, "
        f"DP {layout.dp}, EP {layout.ep}"
    )
    return Source(
        task.name,
        task.split,
        resources(task),
        begin,
        (note,),
        scheduled=True,
        experts=layout.ep > 1,
    )


def _always(program: Program) -> Callable[[int, Change | None], Callable[[int], Program]]:
    def begin(seed: int, change: Change | None) -> Callable[[int], Program]:
        del seed, change
        return lambda _: program

    return begin


def subject_of(source: Source) -> Subject:
    """Returns what can happen to a source, by its first step alone."""
    program = source.begin(0, None)(0)
    rows = range(program.ranks)
    scenarios = [s for s in SCENARIOS.values() if any(s.applies(program, r) for r in rows)]
    return Subject(
        source=source.name,
        split=source.split,
        scenarios=tuple(s.name for s in scenarios),
        confounders=tuple(
            c.name
            for c in CONFOUNDERS.values()
            if (source.scheduled or not c.needs_work) and (source.experts or not c.needs_experts)
        ),
        shared=frozenset(s.name for s in scenarios if s.place == "group"),
    )
