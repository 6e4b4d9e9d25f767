"""The last steps and the live incidents, kept for people and for Prometheus."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from kat_otel.config import DebugConfig
from kat_otel.processor.assembled import AssembledStep
from kat_otel.processor.exhibits import Exhibits
from kat_otel.processor.instances import Instances
from kat_otel.processor.known_incidents import Known, KnownIncidents
from kat_otel.processor.sentence import summary_of
from kat_otel.verdict import Incident, Report

__all__ = ["Recent", "SeenStep", "Tone", "duration_of"]

Tone = Literal["healthy", "incident", "unjudged"]

_MISSING_SHOWN: Final = 16


@dataclass(frozen=True, slots=True)
class SeenStep:
    """One judged step, as the debug page shows it.

    Attributes:
        instance: ``kat.instance.id``, ``""`` if the workers name none.
        step: its number.
        trace_id: 32 hex digits, to look it up in the backend.
        ranks: how many sent spans.
        missing_ranks: the first 16 that did not close it.
        spans: how many arrived before it was judged.
        duration_ns: from its first to its last moment.
        why: why it was judged then: complete, waited, limit, shutdown.
        verdict: one sentence.
        tone: what kind of sentence that is.
        latency_s: from the arrival of its last span to the verdict; None if not known.
        judged_ns: when, Unix ns.
    """

    instance: str
    step: int
    trace_id: str
    ranks: int
    missing_ranks: tuple[int, ...]
    spans: int
    duration_ns: int
    why: str
    verdict: str
    tone: Tone
    latency_s: float | None
    judged_ns: int


class Recent:
    """Written by the judging thread, read by ports; bounded in steps and incidents.

    Args:
        steps: how many of the last steps are kept.
        clock: Unix ns.
        exhibits: what the pages of incidents are made from; None keeps nothing.

    Attributes:
        known: the incidents that live, and the last that were resolved.
        instances: how each of them goes.
        exhibits: as given.
    """

    def __init__(
        self,
        steps: int,
        clock: Callable[[], int] = time.time_ns,
        exhibits: Exhibits | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._steps: deque[SeenStep] = deque(maxlen=steps)
        self.known = KnownIncidents()
        self.instances = Instances()
        self._shown = exhibits is not None
        self.exhibits = exhibits or Exhibits(0, 0)
        self._opened: Counter[tuple[str, str]] = Counter()
        self._pages: Counter[tuple[str, str]] = Counter()

    def judged(
        self,
        step: AssembledStep,
        report: Report,
        latency_s: float | None = None,
        lateness: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        """Takes a step that was just judged.

        Args:
            step: the step.
            report: what was found.
            latency_s: from the arrival of its last span to the verdict; None if not known.
            lateness: of its ranks at collectives, ns; of those that can be compared.
        """
        seen = _seen(step, report, latency_s, self._clock())
        self.instances.judged(step, report, seen.duration_ns, lateness, seen.judged_ns)
        self.exhibits.take(step, report)
        with self._lock:
            self._steps.append(seen)
            for incident in report.incidents:
                self._update(step.instance, incident)

    def reload(self, config: DebugConfig) -> None:
        """Keeps as many of the last steps and incidents as is said now."""
        with self._lock:
            if config.steps != self._steps.maxlen:
                self._steps = deque(self._steps, maxlen=config.steps)
        if self._shown:
            self.exhibits.resize(config.reports, config.reports_mib * 2**20)

    def forget(self, instance: str) -> None:
        """Drops an instance that is gone, and its live incidents."""
        self.known.forget(instance)
        self.instances.forget(instance)
        self.exhibits.forget(instance)

    def steps(self) -> list[SeenStep]:
        """Returns the last steps, the newest first."""
        with self._lock:
            return list(reversed(self._steps))

    def incidents(self) -> list[Known]:
        """Returns the live incidents, pages first, then by what they cost."""
        return sorted(self.known.live(), key=lambda k: (not k.incident.page, -k.incident.impact_ns))

    def opened(self) -> dict[tuple[str, str], int]:
        """Returns how many incidents opened since start, by kind and component."""
        with self._lock:
            return dict(self._opened)

    def pages(self) -> dict[tuple[str, str], int]:
        """Returns how many incidents became a page since start, by kind and component."""
        with self._lock:
            return dict(self._pages)

    def _update(self, instance: str, incident: Incident) -> None:
        known = self.known.update(instance, incident)
        what = (incident.kind, incident.component)
        # One that goes on from before a restart was counted there.
        mine = known is not None or incident.status == "open"
        if known is None and mine:
            self._opened[what] += 1
        if incident.page and mine and not (known is not None and known.page):
            self._pages[what] += 1


def duration_of(step: AssembledStep, report: Report) -> int:
    """Returns how long a step took, ns: as it was judged, or from its first to its last moment."""
    duration_ns = sum(found.duration_ns for found in report.steps)
    if duration_ns or not len(step.spans):
        return duration_ns
    return int(step.unmarked.end_ns.max() - step.unmarked.start_ns.min())


def _seen(step: AssembledStep, report: Report, latency_s: float | None, now_ns: int) -> SeenStep:
    verdict, tone = _verdict(report)
    return SeenStep(
        instance=step.instance,
        step=step.step,
        trace_id=step.trace_id,
        ranks=len(report.source.ranks),
        missing_ranks=step.missing_ranks[:_MISSING_SHOWN],
        spans=len(step.spans),
        duration_ns=duration_of(step, report),
        why=step.ending,
        verdict=verdict,
        tone=tone,
        latency_s=latency_s,
        judged_ns=now_ns,
    )


def _verdict(report: Report) -> tuple[str, Tone]:
    active = report.active
    if active:
        worst = max(active, key=lambda incident: incident.impact_ns)
        more = f" (and {len(active) - 1} more)" if len(active) > 1 else ""
        return summary_of(worst) + more, "incident"
    if report.abstained is not None:
        return f"not judged: {report.abstained.reason}", "unjudged"
    if report.incidents:
        return summary_of(report.incidents[0]), "healthy"  # what this step resolved
    return "healthy", "healthy"
