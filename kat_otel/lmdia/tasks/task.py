"""What a task of the benchmark is: a model on an engine, under a load, laid out over GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kat_otel.lmdia.tasks.gpus import Gpu
from kat_otel.lmdia.tasks.models import Model

__all__ = ["Engine", "Layout", "Load", "Split", "Task", "Work"]

Engine = Literal["vllm", "sglang"]
Load = Literal["prefill", "decode", "mixed"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model lies over GPUs.

    Attributes:
        tp: ranks that share each layer.
        pp: pipeline stages.
        dp: replicas of the attention layers that take steps together (data-parallel attention
            with experts in common); 1 if there is none.
        ep: ranks over which the experts are spread, ``tp * dp`` or 1 (every expert on all ranks).
        per_host: GPUs of a host.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    per_host: int = 8

    @property
    def ranks(self) -> int:
        """Number of GPUs."""
        return self.tp * self.pp * self.dp


@dataclass(frozen=True, slots=True)
class Work:
    """What the scheduler gave one step: the covariates of its kernels' durations.

    Attributes:
        prompt_tokens: tokens of prompts in the batch (of chunked prefill), 0 in a pure decode.
        sequences: sequences that decode one token each, 0 in a pure prefill.
        context: mean tokens of KV cache a sequence.
        expert_load: share of the busiest expert rank over the mean, 1.0 is even; drawn anew each
            step for models with experts.
        busiest: expert rank that has it.
        replicas: tokens of each data-parallel replica over the mean; empty if all are alike.
    """

    prompt_tokens: int
    sequences: int
    context: int
    expert_load: float = 1.0
    busiest: int = 0
    replicas: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """One of the benchmark's inference tasks.

    Attributes:
        model: architecture.
        engine: whose kernel names, graphs and scheduling.
        load: what the requests are like.
        gpu: whose roofline.
        layout: ranks.
        split: for what the task may be used.
    """

    model: Model
    engine: Engine
    load: Load
    gpu: Gpu
    layout: Layout
    split: Split

    @property
    def name(self) -> str:
        """``model.engine.load``: no two tasks share it."""
        return f"{self.model.name}.{self.engine}.{self.load}"
