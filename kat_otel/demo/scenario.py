"""What a demonstration simulates: all of it follows from a few numbers, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import msgspec
import numpy as np

from kat_otel.lmdia import kernel_names
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import Injected, late_launches, slow_kernels, slow_rank
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.recording import Group

__all__ = ["FAULTS", "FaultName", "Scenario"]

FaultName = Literal["clock", "kernel", "launch"]
FAULTS: tuple[FaultName, ...] = get_args(FaultName)

_LAYERS = 20
_CLOCK_PERCENT = (10, 25)
_LAUNCH_MS = (3, 6)


class _Numbers(msgspec.Struct, frozen=True):
    """What a worker is told on its command line."""

    seed: int
    ranks: int
    fault: FaultName
    culprit: int
    healthy_steps: int
    faulty_steps: int
    interval_ms: int


@dataclass(frozen=True)
class Scenario:
    """A group of workers that decodes, and what goes wrong on one of them half way.

    Attributes:
        seed: of the noise and the size of the fault.
        ranks: tensor-parallel workers.
        fault: ``clock`` (all computing kernels slower), ``kernel`` (attention twice as long) or
            ``launch`` (the host falls behind once in every step).
        culprit: the rank it happens to.
        healthy_steps, faulty_steps: steps sent before and after it begins.
        interval_ms: wall time between two steps that are sent. A decode step takes about 4 ms:
            what is sent is one step in many, as a sampling worker does.
    """

    seed: int
    ranks: int
    fault: FaultName
    culprit: int
    healthy_steps: int = 32
    faulty_steps: int = 24
    interval_ms: int = 250

    @staticmethod
    def draw(seed: int, ranks: int, fault: FaultName | None = None) -> Scenario:
        """Returns the scenario of a seed: culprit and, unless given, fault are drawn from it."""
        rng = np.random.default_rng([seed, 0])
        drawn = FAULTS[int(rng.integers(len(FAULTS)))]
        culprit = int(rng.integers(ranks))
        return Scenario(seed=seed, ranks=ranks, fault=fault or drawn, culprit=culprit)

    @property
    def steps(self) -> int:
        """All steps that are sent."""
        return self.healthy_steps + self.faulty_steps

    @property
    def instance(self) -> str:
        """``kat.instance.id`` of the workers."""
        return f"kat-demo-{self.seed}"

    @cached_property
    def program(self) -> Program:
        """A healthy step."""
        model = replace(LLAMA_70B, layers=_LAYERS)
        return decode_program(model, workers(self.ranks, instance=self.instance, host="demo-host"))

    @cached_property
    def group(self) -> Group:
        """The workers with their noise."""
        return Group(self.program, self.seed)

    @cached_property
    def injected(self) -> Injected:
        """A step with the fault."""
        makers: Mapping[FaultName, Callable[[np.random.Generator], Injected]] = {
            "clock": self._clock,
            "kernel": self._kernel,
            "launch": self._launch,
        }
        return makers[self.fault](np.random.default_rng([self.seed, 1]))

    def program_at(self, step: int) -> Program:
        """Returns what the group runs in this step."""
        return self.injected.program if step >= self.healthy_steps else self.program

    def to_text(self) -> str:
        """Returns the scenario for a worker's command line."""
        names = _Numbers.__struct_fields__
        numbers = _Numbers(**{name: getattr(self, name) for name in names})
        return msgspec.json.encode(numbers).decode()

    @staticmethod
    def from_text(text: str) -> Scenario:
        """Reads back what :meth:`to_text` wrote.

        Raises:
            msgspec.ValidationError: it is something else.
        """
        return Scenario(**msgspec.structs.asdict(msgspec.json.decode(text, type=_Numbers)))

    def _clock(self, rng: np.random.Generator) -> Injected:
        return slow_rank(self.program, self.culprit, int(rng.integers(*_CLOCK_PERCENT)))

    def _kernel(self, rng: np.random.Generator) -> Injected:
        del rng
        operations = self.program.operations
        attention = [i for i, op in enumerate(operations) if op.name == kernel_names.ATTENTION]
        return slow_kernels(self.program, self.culprit, attention, 2.0)

    def _launch(self, rng: np.random.Generator) -> Injected:
        delay_ms = int(rng.integers(*_LAUNCH_MS))
        count = len(self.program)
        at = int(rng.integers(count // 10, count // 2))
        return late_launches(self.program, self.culprit, delay_ms * 1e6, [at])
