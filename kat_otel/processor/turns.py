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
    """One life of an instance: a restart has another nonce and counts its steps anew.

    Steps that are sent again for a capture have a nonce of their own, too, so that they are a run
    beside the living one. Runs do not wait for each other: a stream never ends.

    Attributes:
        judged: the last step that was.
        queue: the pending steps as a heap: the one that must be judged before all others is first.
        deadline: when that one is due, monotonic seconds.
    """

    judged: int = UNKNOWN
    queue: list[tuple[int, float, int, Pending]] = field(
        default_factory=list[tuple[int, float, int, Pending]]
    )
    deadline: float = math.inf

    def has_passed(self, number: int) -> bool:
        """Whether the turn of a step of this number has passed.

        Micro-batches share a number, and each has a trace of its own: those of the step that was
        judged last may still come.
        """
        return 0 <= number < self.judged < number + _FAR

    def note(self, number: int) -> None:
        """Notes that a step was judged.

        One span with an absurd number must not make every step after it late, so that there is a
        way back.
        """
        if number >= 0 and not self.has_passed(number):
            self.judged = number

    def put(self, pending: Pending, count: int) -> None:
        """Takes up a pending step; of equal ones the first that came goes first."""
        heapq.heappush(self.queue, (pending.number, pending.first_seen, count, pending))

    def put_anew(self) -> None:
        """Orders the steps again, after one has learnt its number."""
        self.queue = [(p.number, p.first_seen, n, p) for *_, n, p in self.queue]
        heapq.heapify(self.queue)

    def next(self) -> Pending:
        """Returns the pending step that must be judged before all others."""
        return self.queue[0][-1]


@dataclass(slots=True)
class Turns:
    """The steps of an instance: under assembly, in the order of their turn, and judged.

    Attributes:
        pending: steps under assembly.
        records: what is remembered of judged steps, the latest last.
        waiting: the runs with steps under assembly, by the upper half of their trace ids.
        runs: the last runs seen, by the same, the latest last.
    """

    pending: dict[StepKey, Pending] = field(default_factory=dict[StepKey, Pending])
    records: OrderedDict[StepKey, StepRecord] = field(
        default_factory=OrderedDict[StepKey, StepRecord]
    )
    waiting: dict[int, Run] = field(default_factory=dict[int, Run])
    runs: OrderedDict[int, Run] = field(default_factory=OrderedDict[int, Run])

    def run(self, key: StepKey) -> Run:
        """Returns the life of the instance that a step belongs to."""
        name = key.trace_hi
        run = self.waiting.get(name) or self.runs.get(name) or Run()
        self.runs[name] = run
        self.runs.move_to_end(name)
        if len(self.runs) > _RUNS_REMEMBERED:
            self.runs.popitem(last=False)
        return run

    def put(self, pending: Pending, count: int) -> None:
        """Takes up a pending step in its run, as the ``count``-th of all."""
        run = self.waiting[pending.key.trace_hi] = self.run(pending.key)
        self.pending[pending.key] = pending
        run.put(pending, count)

    def pop(self, run: Run) -> Pending:
        """Takes the next step of a run away, to be judged."""
        *_, pending = heapq.heappop(run.queue)
        self.run(pending.key)  # it was seen just now
        del self.pending[pending.key]
        if not run.queue:
            del self.waiting[pending.key.trace_hi]
        return pending

    def oldest(self) -> Run:
        """Returns the run that has waited for longest; there must be one."""
        return next(iter(self.waiting.values()))
