"""Follows the verdicts of a demonstration and says in the end whether they were right."""

from __future__ import annotations

from dataclasses import dataclass, field

from kat_otel.demo.scenario import Scenario
from kat_otel.spans import SpanTable
from kat_otel.verdict import Incident, Report

__all__ = ["Judged", "Outcome", "Watch"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One step that came out of the processor.

    Attributes:
        report: of this step.
        table: its spans.
        at_ns: Unix ns at which it was judged.
    """

    report: Report
    table: SpanTable
    at_ns: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the demonstration ended.

    Attributes:
        right: the injected culprit was named with a kind that fits, and nobody else.
        problems: what was wrong, a sentence each.
        delay_s: from the first faulty step's begin to the verdict; None if it was never named.
    """

    right: bool
    problems: tuple[str, ...]
    delay_s: float | None


@dataclass(slots=True)
class Watch:
    """What has been said so far.

    Attributes:
        scenario: the truth.
        begin_ns: Unix ns of the first step.
        incidents: the newest state of every incident, by id.
        shown: the last step that an incident touched, for the report.
    """

    scenario: Scenario
    begin_ns: int
    steps: int = 0
    spans: int = 0
    step_ns: int = 0
    incidents: dict[str, Incident] = field(default_factory=dict[str, Incident])
    shown: Judged | None = None
    named_ns: int | None = None
    early: list[Incident] = field(default_factory=list[Incident])

    def take(self, judged: Judged) -> list[Incident]:
        """Takes one step's verdict; returns the incidents that are new or have begun to page."""
        report = judged.report
        self.steps += 1
        self.spans += len(judged.table)
        if report.steps:
            self.step_ns = report.steps[0].duration_ns
        active = report.active
        news: list[Incident] = []
        for incident in active:
            known = self.incidents.get(incident.id)
            if known is None or incident.page > known.page:
                news.append(incident)
            self.incidents[incident.id] = incident
            if self.named_ns is None and self.fits(incident):
                self.named_ns = judged.at_ns
        if active:
            self.shown = judged
            if any(step.step < self.scenario.healthy_steps for step in report.steps):
                self.early += active
        return news

    def fits(self, incident: Incident) -> bool:
        """Whether the incident names the injected culprit with a kind that fits."""
        fault = self.scenario.injected.fault
        return tuple(incident.culprit.ranks) == fault.ranks and incident.kind in fault.kinds

    @property
    def outcome(self) -> Outcome:
        """The judgement of the verdicts."""
        fault = self.scenario.injected.fault
        problems = [f"false alarm before the fault: {_short(i)}" for i in self.early[:3]]
        found = list(self.incidents.values())
        if self.named_ns is None and not self.early:
            problems.append(f"rank {self.scenario.culprit} was not named as {fault.kind}")
        problems += [
            f"wrongly blamed: {_short(incident)}"
            for incident in found
            if set(incident.culprit.ranks) != set(fault.ranks)
        ]
        delay = None
        if self.named_ns is not None:
            fault_ns = self.scenario.healthy_steps * self.scenario.interval_ms * 1_000_000
            delay = (self.named_ns - self.begin_ns - fault_ns) / 1e9
        return Outcome(not problems, tuple(dict.fromkeys(problems)), delay)


def _short(incident: Incident) -> str:
    return f"{incident.kind} of ranks {incident.culprit.ranks} in steps {incident.steps[:4]}"
