"""Steps that closed before it is known who the worker is: its ranks' store may take seconds."""

from __future__ import annotations

from collections import deque
from typing import Final

from kat_otel.instrumentation.sending.recorder import STEP_BYTES, small
from kat_otel.instrumentation.steps.step import Step

__all__ = ["EarlySteps"]

MOST_STEPS: Final = 256
MOST_BYTES: Final = 64 << 20


class EarlySteps:
    """Keeps the latest steps, in the order in which they closed.

    Args:
        steps, size: how many, and how many bytes, may wait.
    """

    def __init__(self, steps: int = MOST_STEPS, size: int = MOST_BYTES) -> None:
        self._most = steps
        self._limit = size
        self._steps: deque[tuple[int, Step]] = deque()
        self._size = 0

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    def add(self, step: Step) -> int:
        """Keeps a step; returns how many had to go for it, the oldest first."""
        kept = small(step)
        size = kept.size + STEP_BYTES
        self._steps.append((size, kept))
        self._size += size
        gone = 0
        while self._steps and (len(self._steps) > self._most or self._size > self._limit):
            self._size -= self._steps.popleft()[0]
            gone += 1
        return gone

    def take(self) -> list[Step]:
        """Returns the steps, and keeps none."""
        steps = [step for _, step in self._steps]
        self._steps.clear()
        self._size = 0
        return steps
