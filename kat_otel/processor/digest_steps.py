"""Steps with digests alone wait a moment for the next ones: together they cost a tenth.

One room per instance, in the order of its steps. Nothing here judges, and nothing is lost: a step
holds its receipts until whoever takes it has handled it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from kat_otel.config import DigestsConfig
from kat_otel.processor.assembled import AssembledStep
from kat_otel.processor.digest_spans import DigestSpans

__all__ = ["MOST_IN_ALL", "MOST_SPANS", "MOST_STEPS", "WaitingDigests"]

MOST_STEPS: Final = 128
MOST_SPANS: Final = 4_096
"""Steps of an instance, and their spans (a rank's digest each), that wait at most."""
MOST_IN_ALL: Final = 65_536
"""Spans that wait at most, of all instances."""


@dataclass(slots=True)
class _Room:
    since: float
    steps: list[AssembledStep] = field(default_factory=list[AssembledStep])
    spans: int = 0


class WaitingDigests:
    """Holds steps until it is time to judge them; used by the judging thread.

    Args:
        config: whether steps wait, and for how long.
    """

    def __init__(self, config: DigestsConfig) -> None:
        self._config = config
        self._rooms: OrderedDict[str, _Room] = OrderedDict()  # who waits longest comes first
        self._steps = self._spans = 0

    def reload(self, config: DigestsConfig) -> None:
        """Takes new settings, for those that wait as well."""
        self._config = config

    def takes(self, step: AssembledStep) -> bool:
        """Returns whether a step is one that waits: its ranks sent digests and nothing else."""
        return self._config.enabled and isinstance(step.spans, DigestSpans)

    def put(self, step: AssembledStep, now: float) -> bool:
        """Lets a step wait, from ``now`` (monotonic seconds) on.

        Returns:
            Whether it is the last that there is room for: its instance's are to be taken.
        """
        room = self._rooms.get(step.instance)
        if room is None:
            room = self._rooms[step.instance] = _Room(now)
        room.steps.append(step)
        room.spans += len(step.spans)
        self._steps += 1
        self._spans += len(step.spans)
        return len(room.steps) >= MOST_STEPS or room.spans >= MOST_SPANS

    def take(self, instance: str) -> list[AssembledStep]:
        """Returns the steps of an instance that wait, in order; they no longer do."""
        room = self._rooms.pop(instance, None)
        if room is None:
            return []
        self._steps -= len(room.steps)
        self._spans -= room.spans
        return room.steps

    def due(self, now: float) -> str | None:
        """Returns an instance whose steps have waited long enough, or must make room."""
        if not self._rooms:
            return None
        name, room = next(iter(self._rooms.items()))
        if self._spans > MOST_IN_ALL or room.since + self._config.judge_interval <= now:
            return name
        return None

    def next_due(self) -> float:
        """Returns the monotonic second at which :meth:`due` has somebody; infinity if never."""
        for room in self._rooms.values():
            return room.since + self._config.judge_interval
        return math.inf

    def instances(self) -> list[str]:
        """Returns whose steps wait."""
        return list(self._rooms)

    def fill(self) -> tuple[int, int]:
        """Returns how many steps and spans wait; from any thread."""
        return self._steps, self._spans
