"""The flight recorder: the last steps whole, for whoever asks later. Bounded in time and bytes.

A step is kept in memory of its own. Where it shares it, it is copied, as small as it can be: a
column with one value throughout (most of a table's are, before ids are set) takes one value.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.steps.step import Step
from kat_otel.spans import COLUMNS

__all__ = ["STEP_BYTES", "Recorder", "small"]

_FEW: Final = 16
STEP_BYTES: Final = 4_096
"""What a step takes beside its columns: attributes, objects."""


class Recorder:
    """Keeps steps in the order in which they closed. Used by one thread.

    Args:
        seconds: how long a step is kept.
        limit: bytes that all may take together.
        clock: monotonic seconds.
    """

    def __init__(
        self, seconds: float, limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._limit = limit
        self._clock = clock
        self._steps: deque[tuple[float, int, Step]] = deque()
        self._least: deque[int] = deque()
        """Of the steps held, those that no later one is below: ascending, the first the least."""
        self._size = 0
        self._last = -1

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    @property
    def first(self) -> int:
        """The oldest step such that it and all later ones are held; the next one if none is."""
        self._expire()
        return self._least[0] if self._least else self._last + 1

    def add(self, step: Step) -> None:
        """Keeps a step. One that goes backwards begins a new run: the steps before are let go."""
        if step.step < self._last - 1_000:
            self.clear()
        kept = small(step)
        size = kept.size + STEP_BYTES
        self._last = max(self._last, step.step) if self._steps else step.step
        self._steps.append((self._clock(), size, kept))
        while self._least and self._least[-1] > step.step:
            self._least.pop()
        self._least.append(step.step)
        self._size += size
        self._expire()

    def take(self, first: int, last: int) -> list[Step]:
        """Returns the steps from ``first`` to ``last`` (included) that are held; they stay."""
        self._expire()
        return [step for _, _, step in self._steps if first <= step.step <= last]

    def clear(self) -> None:
        """Lets go of everything."""
        self._steps.clear()
        self._least.clear()
        self._size = 0

    def _expire(self) -> None:
        oldest = self._clock() - self._seconds
        while self._steps and (self._steps[0][0] < oldest or self._size > self._limit):
            _, size, gone = self._steps.popleft()
            self._size -= size
            if self._least[0] == gone.step:
                self._least.popleft()


def small(step: Step) -> Step:
    """Returns the step in memory of its own, which its ``size`` says; as little as it can be."""
    table = step.table
    if step.size:
        return step
    columns: dict[str, NDArray[Any]] = {}
    for name in COLUMNS:
        column: NDArray[Any] = getattr(table, name)
        if column.strides == (0,) or not len(column):
            continue
        # Most columns that vary do so at once: the others alone are looked through.
        few = column[:: len(column) // _FEW + 1]
        if bool((few == column[0]).all()) and bool((column == column[0]).all()):
            # What np.broadcast_to does, without its ten microseconds.
            columns[name] = np.ndarray(column.shape, column.dtype, column[:1].copy(), 0, (0,))
            columns[name].flags.writeable = False
        elif column.base is not None:  # a view may keep a larger array in memory
            columns[name] = column.copy()
    table = replace(table, **columns)
    return replace(step, table=table, size=table.nbytes)
