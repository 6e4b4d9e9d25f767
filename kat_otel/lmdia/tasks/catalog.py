"""The 42 tasks: 7 models x 2 engines x 3 loads, each on GPUs and a layout that fit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_args

from kat_otel.errors import ConfigError
from kat_otel.lmdia.tasks.gpus import GPUS
from kat_otel.lmdia.tasks.models import MODELS
from kat_otel.lmdia.tasks.task import Engine, Layout, Load, Split, Task

__all__ = ["TASKS", "task_named"]

_Place = tuple[str, Layout]

_PLACES: Final[Mapping[str, tuple[_Place, ...]]] = {
    "qwen3-8b": (
        ("A100-80GB", Layout(tp=2)),
        ("A100-80GB", Layout(tp=4)),
        ("H100-SXM", Layout(tp=2)),
        ("MI300X", Layout(tp=2)),
        ("H100-SXM", Layout(tp=4)),
        ("A100-80GB", Layout(tp=2)),
    ),
    "qwen3-32b": (
        ("H100-SXM", Layout(tp=4)),
        ("H100-SXM", Layout(tp=8)),
        ("A100-80GB", Layout(tp=4, pp=2)),
        ("H200-SXM", Layout(tp=4)),
        ("MI300X", Layout(tp=4)),
        ("A100-80GB", Layout(tp=8)),
    ),
    "llama-3.1-70b": (
        ("H100-SXM", Layout(tp=8)),
        ("H200-SXM", Layout(tp=4, pp=2)),
        ("H100-SXM", Layout(tp=8, pp=2)),
        ("MI300X", Layout(tp=8)),
        ("H100-SXM", Layout(tp=8)),
        ("H200-SXM", Layout(tp=4, pp=4)),
    ),
    "gpt-oss-120b": (
        ("B200", Layout(tp=2)),
        ("B200", Layout(tp=8)),
        ("H100-SXM", Layout(tp=4)),
        ("B200", Layout(tp=4)),
        ("H200-SXM", Layout(tp=4)),
        ("MI300X", Layout(tp=8)),
    ),
    "qwen3-235b-a22b": (
        ("H200-SXM", Layout(tp=4, dp=2, ep=8)),
        ("H200-SXM", Layout(tp=8, ep=8)),
        ("H100-SXM", Layout(tp=8, dp=2, ep=16)),
        ("H200-SXM", Layout(tp=8)),
        ("H100-SXM", Layout(tp=4, dp=4, ep=16)),
        ("MI300X", Layout(tp=8)),
    ),
    "deepseek-v3": (
        ("H200-SXM", Layout(dp=16, ep=16)),
        ("H200-SXM", Layout(dp=32, ep=32)),
        ("H200-SXM", Layout(tp=8, dp=2, ep=16)),
        ("H100-SXM", Layout(dp=32, ep=32)),
        ("H100-SXM", Layout(dp=64, ep=64)),
        ("H200-SXM", Layout(tp=8, pp=2)),
    ),
    "wan2.1-14b": (
        ("H100-SXM", Layout(tp=8)),
        ("H100-SXM", Layout(tp=2)),
        ("A100-80GB", Layout(tp=4)),
        ("H200-SXM", Layout(tp=4)),
        ("B200", Layout(tp=2)),
        ("H100-SXM", Layout(tp=4)),
    ),
}
"""Of each model, where it runs: vLLM with each load, then SGLang with each."""

_ENGINES: Final[tuple[Engine, ...]] = get_args(Engine)
_LOADS: Final[tuple[Load, ...]] = get_args(Load)


def _tasks() -> tuple[Task, ...]:
    found: list[Task] = []
    for number, (model, places) in enumerate(_PLACES.items()):
        for at, (gpu, layout) in enumerate(places):
            engine, load = _ENGINES[at // len(_LOADS)], _LOADS[at % len(_LOADS)]
            split = _split(number, at // len(_LOADS), at % len(_LOADS))
            found.append(Task(MODELS[model], engine, load, GPUS[gpu], layout, split))
    return tuple(found)


def _split(model: int, engine: int, load: int) -> Split:
    """Of each model's six tasks two are for testing, one for validation: by its number alone."""
    if load == (model + engine) % len(_LOADS):
        return "test"
    if engine == model % len(_ENGINES) and load == (model + engine + 1) % len(_LOADS):
        return "validation"
    return "train"


TASKS: Final = _tasks()


def task_named(name: str) -> Task:
    """Returns a task by its name.

    Raises:
        ConfigError: there is none; the message says how names look.
    """
    for task in TASKS:
        if task.name == name:
            return task
    raise ConfigError(f"{name}: no task of the benchmark; one is {TASKS[0].name!r}")
