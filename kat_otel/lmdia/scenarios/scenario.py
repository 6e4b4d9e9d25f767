"""A fault edits what a sick part owns; how much of it there is is found by the step's length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from kat_otel.errors import KatError
from kat_otel.lmdia.hardware import Cause
from kat_otel.lmdia.program import Mask, Program
from kat_otel.lmdia.replay import simulate
from kat_otel.verdict import Component, Kind

__all__ = ["Edit", "Place", "Scenario", "TooMildError", "Tuned", "tune"]

Place = Literal["rank", "group"]
"""Whether one rank differs from the others, or a whole group is hit and no rank of it differs."""

_ROUNDS: Final = 40
_CLOSE: Final = 0.002
"""Of the step's length: how close to the severity asked for is close enough."""


class TooMildError(KatError):
    """The step's slack hides the fault: no magnitude makes the step as much longer as asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """A program with a fault in it.

    Attributes:
        program: what runs now.
        affected: bool ``(r, n)``, the operations whose own times were changed.
    """

    program: Program
    affected: Mask


@dataclass(frozen=True, slots=True)
class Scenario:
    """One of the eleven.

    Attributes:
        name: as the field knows it.
        text: what is done to the machine.
        edit: what it does to a program: by the culprit's row, a magnitude, and a draw that is the
            same at every call in one step.
        applies: whether it can happen to this rank of a program.
        place: who differs.
        kinds: kinds of ``kat.report/v1`` that describe it rightly, the best first.
        component: what is sick, as metrics and logs show.
        candidates: what traces alone can tell, at most three.
        causes: signs that the machine may show, one of which is drawn; none if nothing reports it.
        most: largest magnitude that is physical.
        unit: of the magnitude.
    """

    name: str
    text: str
    edit: Callable[[Program, int, float, np.random.Generator], Edit]
    applies: Callable[[Program, int], bool]
    place: Place
    kinds: tuple[Kind, ...]
    component: Component
    candidates: tuple[Component, ...]
    causes: tuple[Cause, ...]
    most: float
    unit: str


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """How much of a fault makes a step longer by how much.

    Attributes:
        magnitude: in the scenario's unit.
        severity: share by which the noiseless step gets longer.
    """

    magnitude: float
    severity: float


def tune(scenario: Scenario, program: Program, row: int, severity: float, seed: int) -> Tuned:
    """Finds the magnitude at which the noiseless step is longer by ``severity``.

    Args:
        scenario: the fault.
        program: a healthy step.
        row: of the culprit.
        severity: share of the step's length, above 0.
        seed: of what the fault draws.

    Raises:
        TooMildError: not even the largest physical magnitude does it.
    """
    healthy = simulate(program).step_ns

    def longer(magnitude: float) -> float:
        edit = scenario.edit(program, row, magnitude, np.random.default_rng(seed))
        return simulate(edit.program).step_ns / healthy - 1.0

    low, high = 0.0, scenario.most
    reached = longer(high)
    if reached < severity:
        raise TooMildError(
            f"{scenario.name}: at most {100 * reached:.1f} % longer with {high:g} {scenario.unit}, "
            f"{100 * severity:g} % were asked for"
        )
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        reached = longer(middle)
        if abs(reached - severity) <= _CLOSE * severity:
            return Tuned(middle, reached)
        low, high = (middle, high) if reached < severity else (low, middle)
    return Tuned(high, longer(high))
