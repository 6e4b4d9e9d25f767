"""The incidents that wait to be asked about: each once, the costliest first, never too many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from kat_otel.verdict import Incident, Report

__all__ = ["Explain", "Question", "Questions"]


class Explain(Protocol):
    """Has incidents explained later; ``asking.Asking.offer`` is one."""

    def __call__(
        self, instance: str, incident: Incident, report: Report, span: tuple[bytes, bytes], /
    ) -> None:
        """Takes an incident, its step's report, and the ids of its culprit's span."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """An incident to be explained, as it was when it left.

    Attributes:
        instance: ``kat.instance.id``.
        incident: as the detector and the hardware's readings told it.
        report: of its step; nothing of its spans is held.
        trace_id, span_id: the culprit's span, empty if none is cited.
        asked_at: when it came here first, monotonic seconds.
    """

    instance: str
    incident: Incident
    report: Report
    trace_id: bytes
    span_id: bytes
    asked_at: float


class Questions:
    """Put in by the judging thread, taken by the asking one; neither waits for the other.

    Args:
        most: entries; beyond it the incident that costs least is dropped.
        clock: monotonic seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._clock = clock
        self._waiting: dict[str, Question] = {}
        self._under_way: set[str] = set()

    def __len__(self) -> int:
        """Returns how many incidents wait."""
        return len(self._waiting)

    def put(
        self, instance: str, incident: Incident, report: Report, span: tuple[bytes, bytes]
    ) -> bool:
        """Takes an incident; news of one that waits takes its place and keeps its age.

        Returns:
            False if there is one too many now and the cheapest was dropped.
        """
        with self._lock:
            before = self._waiting.get(incident.id)
            at = self._clock() if before is None else before.asked_at
            self._waiting[incident.id] = Question(instance, incident, report, *span, at)
            if len(self._waiting) <= self._most:
                return True
            cheapest = min(self._waiting, key=self._weight)
            del self._waiting[cheapest]
            return False

    def take(self) -> Question | None:
        """Returns the costliest that waits, and about which nobody is asked now; None if none is.

        The caller says :meth:`done` when it is through with it.
        """
        with self._lock:
            free = self._waiting.keys() - self._under_way
            if not free:
                return None
            name = max(free, key=self._weight)
            self._under_way.add(name)
            return self._waiting.pop(name)

    def done(self, question: Question) -> None:
        """Lets news of the incident be taken."""
        with self._lock:
            self._under_way.discard(question.incident.id)

    def clear(self) -> int:
        """Drops all that wait; returns how many they were."""
        with self._lock:
            count = len(self._waiting)
            self._waiting.clear()
            return count

    def _weight(self, name: str) -> tuple[bool, int, float]:
        """Pages first, then by what a step loses, then the one that came first."""
        waiting = self._waiting[name]
        return waiting.incident.page, waiting.incident.impact_ns, -waiting.asked_at
