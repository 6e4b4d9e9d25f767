"""Whose turn it is: the steps of one instance in order, and how far its judging has come."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from kat_otel.processor.assembled import StepRecord
from kat_otel.processor.pending import Pending
from kat_otel.processor.split import StepKey
from kat_otel.spans import UNKNOWN

__all__ = ["Run", "Turns"]

_RUNS_REMEMBERED: Final = 16

_FAR: Final = 10_000
"""Steps. What is further back than this is not late: the number that went before was wrong."""


@dataclass(slots=True)
class Run:
    """One life of an instance: a restart has another nonce and counts its steps anew."""

    order: int
    judged: int = UNKNOWN

    def has_passed(self, number: int) -> bool:
        """Whether the turn of a step of this number has passed."""
        return 0 <= number <= self.judged < number + _FAR

    def note(self, number: int) -> None:
        """Notes that a step was judged.

        One span with an absurd number must not make every step after it late, so that there is a
        way back.
        """
        if number >= 0 and not self.has_passed(number):
            self.judged = number


@dataclass(slots=True)
class Turns:
    """The steps of an instance: under assembly, in the order of their turn, and judged.

    Attributes:
        pending: steps under assembly.
        records: what is remembered of judged steps, the latest last.
        runs: the instance's lives by the upper half of their trace ids, the last seen at the end.
        runs_seen: how many there were.
        queue: the pending steps as a heap: the one that must be judged before all others is first.
        deadline: when that one is due, monotonic seconds.
    """

    pending: dict[StepKey, Pending] = field(default_factory=dict[StepKey, Pending])
    records: OrderedDict[StepKey, StepRecord] = field(
        default_factory=OrderedDict[StepKey, StepRecord]
    )
    runs: OrderedDict[int, Run] = field(default_factory=OrderedDict[int, Run])
    runs_seen: int = 0
    queue: list[tuple[int, int, float, int, Pending]] = field(
        default_factory=list[tuple[int, int, float, int, Pending]]
    )
    deadline: float = math.inf

    def run(self, key: StepKey) -> Run:
        """Returns the life of the instance that a step belongs to."""
        run = self.runs.get(key.trace_hi)
        if run is None:
            self.runs_seen += 1
            run = self.runs[key.trace_hi] = Run(self.runs_seen)
            if len(self.runs) > _RUNS_REMEMBERED:
                self.runs.popitem(last=False)
        self.runs.move_to_end(key.trace_hi)
        return run

    def put(self, pending: Pending, count: int) -> None:
        """Takes up a pending step; of equal ones the first that came goes first."""
        entry = (pending.run_order, pending.number, pending.first_seen, count, pending)
        heapq.heappush(self.queue, entry)

    def put_anew(self) -> None:
        """Orders the steps again, after one has learnt its number."""
        self.queue = [(p.run_order, p.number, p.first_seen, n, p) for *_, n, p in self.queue]
        heapq.heapify(self.queue)

    def next(self) -> Pending:
        """Returns the pending step that must be judged before all others."""
        return self.queue[0][-1]
