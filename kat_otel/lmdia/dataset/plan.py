"""Which cases the benchmark has: drawn by seed, the same for everybody.

Every source (a task, or a real trace) meets every scenario that applies to it at some points of
:data:`GRID`, every confounder once, and healthy load. What applies is a matter of the step's
program alone: nothing that a detector says has a say in the plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from kat_otel.lmdia.label import Part
from kat_otel.lmdia.tasks.task import Split

__all__ = ["ALWAYS", "GRID", "PROMISED", "SIZES", "Case", "Size", "Subject", "fingerprint", "plan"]

ALWAYS: Final = 0
"""``lasting`` of a fault that is there from the first step to the last."""

PROMISED: Final = 0.05
"""Severity from which a detector of steps should find a fault; milder cases are counted apart."""

GRID: Final[tuple[tuple[float, int], ...]] = (
    (0.05, 20),
    (0.2, 1),
    (0.1, 20),
    (0.5, 8),
    (0.2, 8),
    (1.0, 20),
    (0.5, 1),
    (0.2, ALWAYS),
    (0.02, 20),
)
"""Severity (share by which a step gets longer) and duration (judged steps) of a fault."""

Size = Literal["sample", "small", "standard", "full"]

SIZES: Final[Mapping[Size, tuple[int, int]]] = {
    "sample": (1, 1),
    "small": (1, 1),
    "standard": (2, 2),
    "full": (len(GRID), 10),
}
"""Of each size, the points of the grid that a scenario meets, and the healthy cases of a source.
A sample has some cases of one source."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One case before it is played.

    Attributes:
        name: unique, and good for a folder's.
        source: name of the task or real trace.
        split: of the source.
        part: fault, confounder or healthy.
        scenario: of the fault or the confounder; ``healthy``.
        severity: of a fault, the share by which the noiseless step is to get longer.
        lasting: judged steps that it is there, or :data:`ALWAYS`.
        seed: of everything that is drawn.
    """

    name: str
    source: str
    split: Split
    part: Part
    scenario: str
    severity: float = 0.0
    lasting: int = 0
    seed: int = 0


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What can happen to a source.

    Attributes:
        source: its name.
        split: what it may be used for.
        scenarios, confounders: names of those that apply; a scenario that no rank differs by
            cannot be told without history and is never there from the beginning.
        shared: scenarios that all ranks have alike.
    """

    source: str
    split: Split
    scenarios: tuple[str, ...]
    confounders: tuple[str, ...]
    shared: frozenset[str] = frozenset()


def plan(subjects: Sequence[Subject], seed: int, size: Size) -> list[Case]:
    """Returns the cases of some sources, source by source.

    Args:
        subjects: the sources; what each meets does not depend on the others.
        seed: of the benchmark.
        size: how many.
    """
    points, healthy = SIZES[size]
    return [case for subject in subjects for case in _of(subject, seed, points, healthy)]


def _of(subject: Subject, seed: int, points: int, healthy: int) -> Iterator[Case]:
    for scenario in subject.scenarios:
        grid = [p for p in GRID if p[1] != ALWAYS or scenario not in subject.shared]
        rng = np.random.default_rng(_seed(seed, subject.source, scenario))
        order: list[int] = rng.permutation(len(grid)).tolist()
        for severity, lasting in [grid[at] for at in sorted(order[:points])]:
            length = "always" if lasting == ALWAYS else f"{lasting}"
            name = f"{scenario}.{100 * severity:g}pc.{length}"
            case = _case(subject, "fault", scenario, name, seed)
            yield msgspec.structs.replace(case, severity=severity, lasting=lasting)
    for confounder in subject.confounders:
        yield _case(subject, "confounder", confounder, confounder, seed)
    for number in range(healthy):
        yield _case(subject, "healthy", "healthy", f"healthy.{number}", seed)


def _case(subject: Subject, part: Part, scenario: str, name: str, seed: int) -> Case:
    whole = f"{subject.source}.{name}"
    return Case(
        name=whole,
        source=subject.source,
        split=subject.split,
        part=part,
        scenario=scenario,
        seed=_seed(seed, whole),
    )


def _seed(seed: int, *words: str) -> int:
    text = "/".join([str(seed), *words])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def fingerprint(cases: Iterable[Case]) -> str:
    """Returns a hash of a plan: two with the same play the same cases."""
    return hashlib.sha256(msgspec.json.encode(list(cases))).hexdigest()
