"""From a planned case to steps: healthy ones to learn from, then what the case is about, then rest.

Whole traces are sampled in a fleet, so a case's steps are samples: one every :data:`PERIOD_S`
seconds on the clock that metrics and logs share, :data:`STRIDE` step numbers apart. A fault that
lasts one judged step was there for one such period.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.identity import nonce_of
from kat_otel.lmdia.dataset.plan import ALWAYS, Case
from kat_otel.lmdia.dataset.played import CannotPlayError, PlayedStep, affected_ids
from kat_otel.lmdia.dataset.sources import Source
from kat_otel.lmdia.hardware import COMPONENT_OF, Cause, Machines, Request
from kat_otel.lmdia.label import Label, Truth
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.recording import ZERO_UNIX_NS, Group
from kat_otel.lmdia.scenarios.confounders import CONFOUNDERS, Confounder
from kat_otel.lmdia.scenarios.faults import SCENARIOS
from kat_otel.lmdia.scenarios.scenario import Edit, Scenario, TooMildError, Tuned, tune
from kat_otel.lmdia.table import to_table
from kat_otel.spans import Resource, SpanTable

__all__ = ["PERIOD_S", "STRIDE", "WARM_UP", "Episode", "play"]

PERIOD_S: Final = 5
STRIDE: Final = 100
WARM_UP: Final = 20
"""Healthy steps before a fault, more than history asks for."""

_REST: Final = 4
_HEALTHY: Final = 24
"""Steps of a case in which nothing happens, after the warm-up."""

_BEFORE_S: Final = 60
"""How much earlier than the first step metrics begin."""


@dataclass(frozen=True)
class Episode:
    """A case of one source, ready to be played.

    Attributes:
        case: as planned.
        source: what it happens to.
    """

    case: Case
    source: Source

    @property
    def workers(self) -> Sequence[Resource]:
        """The ranks."""
        return self.source.resources

    @property
    def label(self) -> Label:
        """The truth.

        Raises:
            CannotPlayError: the step's slack hides the fault.
        """
        return self._label

    @cached_property
    def _label(self) -> Label:
        case, onset = self.case, self._onset
        faults = (self._truth(self._scenario),) if self._scenario else ()
        allowed = self._confounder.allowed(self._rank) if self._confounder else ()
        return Label(
            case=case.name,
            task=self.source.name,
            part=case.part,
            scenario=case.scenario,
            steps=tuple(STRIDE * at for at in range(self._count)),
            warm_up=0 if self._confounder and self._confounder.from_start else onset,
            faults=faults,
            allowed=allowed,
            notes=self.source.notes,
        )

    def steps(self) -> Iterator[PlayedStep]:
        """Yields the steps in order."""
        healthy = self._begin()
        nonce = nonce_of(f"{self.case.name} {self.case.seed}")
        for at in range(self._count):
            program = healthy(at)
            edit = self._edit(program, at)
            if edit is not None:
                program = edit.program
            elif self._confounder and self._on(at):
                rng = np.random.default_rng([self.case.seed, 3, at])
                program = self._confounder.program(program, self._row, at - self._onset, rng)
            group = Group(program, self.case.seed)
            noisy, times = group.play(at)
            table = to_table(noisy, times, step=STRIDE * at, zero_unix_ns=_when(at), nonce=nonce)
            affected: tuple[NDArray[np.uint64], ...] = ()
            if self._scenario:
                none = np.empty(0, np.uint64)
                affected = (none if edit is None else affected_ids(noisy, table, edit.affected),)
            yield PlayedStep(STRIDE * at, self._received(table, at), affected)

    def requests(self) -> Iterator[Request]:
        """Yields metrics and logs of the machines."""
        over = _when(self._onset + self._lasting) if self._scenario else None
        machines = Machines(
            workers=self.workers,
            cause=self._cause,
            culprit=self._row,
            begin_ns=ZERO_UNIX_NS - _BEFORE_S * 10**9,
            onset_ns=_when(self._onset) if self._cause != "healthy" else _when(self._count),
            end_ns=_when(self._count),
            period_s=PERIOD_S,
            seed=self.case.seed,
            over_ns=over,
        )
        return machines.requests()

    @cached_property
    def tuned(self) -> Tuned:
        """How much of the fault there is, by the first step that has it.

        Raises:
            CannotPlayError: the step's slack hides the fault.
        """
        scenario = self._scenario
        if scenario is None:
            raise CannotPlayError(f"{self.case.name}: has no fault")
        program = self._begin()(self._onset)
        seed = self._drawn(self._onset)
        try:
            return tune(scenario, program, self._row, self.case.severity, seed)
        except TooMildError as error:
            raise CannotPlayError(f"{self.case.name}: {error}") from error

    @property
    def _scenario(self) -> Scenario | None:
        return SCENARIOS[self.case.scenario] if self.case.part == "fault" else None

    @property
    def _confounder(self) -> Confounder | None:
        return CONFOUNDERS[self.case.scenario] if self.case.part == "confounder" else None

    @cached_property
    def _row(self) -> int:
        """The rank that it happens to, drawn among those that it can happen to."""
        rng = np.random.default_rng([self.case.seed, 1])
        rows = list(range(len(self.workers)))
        if self._scenario:
            program = self._begin()(self._onset)
            rows = [r for r in rows if self._scenario.applies(program, r)]
        if not rows:
            raise CannotPlayError(f"{self.case.name}: happens to no rank of {self.source.name}")
        return rows[int(rng.integers(len(rows)))]

    @property
    def _rank(self) -> int:
        return self.workers[self._row].rank

    @cached_property
    def _cause(self) -> Cause:
        scenario = self._scenario
        if scenario is None or not scenario.causes:
            return "healthy"
        rng = np.random.default_rng([self.case.seed, 2])
        return scenario.causes[int(rng.integers(len(scenario.causes)))]

    @property
    def _onset(self) -> int:
        if self._confounder and self._confounder.from_start:
            return 0
        always = self.case.part == "fault" and self.case.lasting == ALWAYS
        return 0 if always else WARM_UP

    @property
    def _lasting(self) -> int:
        if self._confounder:
            return self._confounder.lasting
        return self.case.lasting if self.case.lasting != ALWAYS else WARM_UP

    @property
    def _count(self) -> int:
        if self.case.part == "healthy":
            return WARM_UP + _HEALTHY
        if self.case.part == "fault" and self.case.lasting == ALWAYS:
            return WARM_UP
        return max(WARM_UP, self._onset + self._lasting) + _REST

    def _on(self, at: int) -> bool:
        return self._onset <= at < self._onset + self._lasting

    def _begin(self) -> Callable[[int], Program]:
        confounder = self._confounder
        if confounder is None:
            return self.source.begin(self.case.seed, None)
        return self.source.begin(
            self.case.seed,
            lambda work, at: confounder.work(work, at - self._onset) if self._on(at) else work,
        )

    def _drawn(self, at: int) -> int:
        """Seed of what a fault draws: anew in each step, but for a family that stays slow."""
        lasts = self.case.scenario == "kernel_regression"
        return self.case.seed if lasts else self.case.seed + 7919 * (at + 1)

    def _edit(self, program: Program, at: int) -> Edit | None:
        scenario = self._scenario
        if scenario is None or not self._on(at):
            return None
        rng = np.random.default_rng(self._drawn(at))
        return scenario.edit(program, self._row, self.tuned.magnitude, rng)

    def _received(self, table: SpanTable, at: int) -> SpanTable:
        if self._confounder is None or not self._on(at):
            return table
        rng = np.random.default_rng([self.case.seed, 4, at])
        return self._confounder.table(table, self._row, at - self._onset, rng)

    def _truth(self, scenario: Scenario) -> Truth:
        tuned = self.tuned
        mine = self.workers[self._row]
        alone = scenario.place == "rank"
        first, last = self._onset, self._onset + self._lasting - 1
        everyone = sorted({w.host for w in self.workers if w.host})
        return Truth(
            kinds=scenario.kinds,
            culprits=(mine.rank,) if alone else (),
            hosts=(mine.host,) if alone else tuple(everyone),
            victims=tuple(w.rank for w in self.workers if alone and w.rank != mine.rank),
            component=COMPONENT_OF.get(self._cause, scenario.component),
            candidates=scenario.candidates,
            first_step=STRIDE * first,
            last_step=STRIDE * last,
            severity=round(tuned.severity, 4),
            magnitude=round(tuned.magnitude, 4),
            unit=scenario.unit,
            text=f"{scenario.text} ({self._cause})" if scenario.causes else scenario.text,
        )


def play(case: Case, sources: Mapping[str, Source]) -> Episode:
    """Returns a case, ready to be played.

    Args:
        case: as planned.
        sources: by name.

    Raises:
        CannotPlayError: the source is not there, or its slack hides the fault.
    """
    source = sources.get(case.source)
    if source is None:
        raise CannotPlayError(f"{case.name}: {case.source} is not at hand (real traces? --traces)")
    episode = Episode(case, source)
    _ = episode.label  # what cannot be played is said before the first step
    return episode


def _when(at: int) -> int:
    return ZERO_UNIX_NS + at * PERIOD_S * 10**9
