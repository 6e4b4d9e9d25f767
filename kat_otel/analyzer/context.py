"""What a report says around an incident: the step, the ranks, and what was not judged."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from kat_otel.verdict import ClockState, Report

__all__ = ["Context", "context_of"]

_ENGINES: Final = frozenset({"vllm", "sglang", "tensorrt_llm", "deepspeed", "pytorch"})
_PARALLEL: Final = {"tp": "tensor", "pp": "pipeline", "dp": "data", "ep": "expert"}


@dataclass(frozen=True, slots=True)
class Context:
    """Numbers and words of closed lists; the model's name alone is the workload's.

    Attributes:
        step_ns: median duration of the steps judged, ns; 0 if unknown.
        ranks: ranks read.
        world_size: ranks of the instance; 0 if unknown.
        engine: a known engine, or ``""``.
        model: what the instance serves, as it says; untrusted.
        parallelism: degree by way, the known ways only.
        kernels, unmatched: kernels read, and those without a counterpart.
        clock: how the clocks of the ranks relate; None if unknown.
    """

    step_ns: int = 0
    ranks: int = 0
    world_size: int = 0
    engine: str = ""
    model: str = ""
    parallelism: Mapping[str, int] = field(default_factory=dict[str, int])
    kernels: int = 0
    unmatched: int = 0
    clock: ClockState | None = None


def context_of(report: Report) -> Context:
    """Returns what a report says around its incidents."""
    instance, source = report.instance, report.source
    durations = [step.duration_ns for step in report.steps]
    ways = (instance.parallelism if instance else None) or {}
    engine = (instance.engine if instance else None) or ""
    return Context(
        step_ns=int(statistics.median(durations)) if durations else 0,
        ranks=len(source.ranks),
        world_size=source.world_size or 0,
        engine=engine if engine in _ENGINES else "",
        model=(instance.model if instance else None) or "",
        parallelism={_PARALLEL[way]: ways[way] for way in _PARALLEL if way in ways},
        kernels=report.coverage.kernels,
        unmatched=report.coverage.unmatched,
        clock=source.clock.state if len(source.ranks) > 1 else None,
    )
