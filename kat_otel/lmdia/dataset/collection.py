"""Everything at hand that cases can be made of, and the plans over it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from kat_otel.lmdia.dataset.plan import Case, Size, plan
from kat_otel.lmdia.dataset.sources import Source, real_sources, subject_of, task_sources
from kat_otel.lmdia.tasks.task import Split

__all__ = ["SEED", "cases_of", "sources"]

SEED: Final = 1
"""Of the benchmark as published: other seeds make other cases of the same kinds."""

_SAMPLE: Final = ("qwen3-8b.sglang.decode",)
_EVERY: Final = 5
"""A sample has every so many cases of a small test task."""


@functools.cache
def sources(traces: Path | None) -> Mapping[str, Source]:
    """Returns the tasks, and the groups of the real traces in a folder, by name."""
    return {**task_sources(), **(real_sources(traces) if traces else {})}


def cases_of(
    size: Size,
    splits: Sequence[Split],
    *,
    traces: Path | None = None,
    seed: int = SEED,
    only: Sequence[str] = (),
) -> list[Case]:
    """Returns the planned cases of some splits.

    Args:
        size: how many.
        splits: of which tasks.
        traces: folder of real traces; they belong to the test split.
        seed: of the plan.
        only: names of sources; all if empty.
    """
    chosen = [
        source
        for name, source in sources(traces).items()
        if source.split in splits
        and (not only or name in only)
        and (size != "sample" or name in _SAMPLE)
    ]
    cases = plan([subject_of(source) for source in chosen], seed, size)
    return cases[::_EVERY] if size == "sample" else cases
