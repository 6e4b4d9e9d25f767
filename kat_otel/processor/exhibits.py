"""What the pages of the last incidents are made from: each one's report, and the step it was in.

Nothing is drawn or copied here. The judging thread hands over references to spans that it is done
with; a page is made of them when somebody asks for it, in another thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import msgspec

from kat_otel.processor.assembled import AssembledStep
from kat_otel.spans import SpanTable
from kat_otel.verdict import Incident, Report

__all__ = ["Exhibit", "Exhibits", "Held"]

_DIGESTS: Final = (
    "only digests came of its steps so far; kat capture asks the workers for whole ones."
)
_LET_GO: Final = "its spans were let go to make room (debug.reports_mib)."
_BEFORE: Final = "the steps that showed it were judged by a former process."


class Held(NamedTuple):
    """A step's spans, and the bytes of their columns."""

    table: SpanTable
    nbytes: int


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One incident, as its page shows it.

    Attributes:
        instance: ``kat.instance.id``, ``""`` if the workers name none.
        report: of the step that is drawn, with this incident alone: the facts are that step's, its
            life (status, steps, cost) is as it was last seen.
        spans: that step, or None.
        healthy: the last whole step of the instance in which nothing was wrong, or None.
        whole: the step is complete.
        missing: why there are no spans; ``""`` if there are.
    """

    instance: str
    report: Report
    spans: Held | None
    healthy: Held | None
    whole: bool
    missing: str

    @property
    def incident(self) -> Incident:
        """The incident."""
        return self.report.incidents[0]


class _Later(NamedTuple):
    """A model's diagnosis, and by id the signals of the facts that it may cite."""

    diagnosis: dict[str, Any]
    signals: dict[str, str]

    def put_into(self, exhibit: Exhibit) -> Exhibit:
        """Returns the exhibit with it, unless its facts are others by now."""
        incident, diagnosis = exhibit.incident, self.diagnosis
        there = {fact.id: fact.signal for fact in incident.evidence}
        cited = {name for claim in diagnosis["causal_chain"] for name in claim["evidence_ids"]}
        if any(there.get(name) != self.signals[name] for name in cited & self.signals.keys()):
            return exhibit
        told = msgspec.structs.replace(incident, diagnosis=diagnosis)
        report = msgspec.structs.replace(exhibit.report, incidents=[told])
        return replace(exhibit, report=report)


class Exhibits:
    """Of the incidents that were seen last; written by the judging thread, read by ports.

    Args:
        most: incidents that are kept, and instances of which a healthy step is; 0 keeps none.
        max_bytes: of all their spans together, and of the texts that these alone hold on to.
    """

    def __init__(self, most: int, max_bytes: int) -> None:
        self._lock = threading.Lock()
        self._most, self._max_bytes = most, max_bytes
        self._kept: OrderedDict[str, Exhibit] = OrderedDict()
        self._healthy: OrderedDict[str, Held] = OrderedDict()
        self._later: OrderedDict[str, _Later] = OrderedDict()

    def resize(self, most: int, max_bytes: int) -> None:
        """Takes other limits."""
        with self._lock:
            self._most, self._max_bytes = most, max_bytes
            self._shrink()

    def take(self, step: AssembledStep, report: Report) -> None:
        """Takes a step that was just judged."""
        if not self._most:
            return
        spans = _whole(step)
        healthy = spans is not None and not report.incidents and report.abstained is None
        if not (report.incidents or healthy):
            return
        with self._lock:
            if healthy and spans is not None:
                self._healthy[step.instance] = spans
                self._healthy.move_to_end(step.instance)
            for incident in report.incidents:
                now = self._exhibit(step, report, incident, spans)
                self._put(now, self._kept.pop(incident.id, None))
            self._shrink()

    def diagnosed(self, incident: Incident, diagnosis: dict[str, Any]) -> None:
        """Takes what a model made of an incident after it had left; from any thread.

        Args:
            incident: as it was when the model was asked.
            diagnosis: as ``kat.report/v1`` holds it.
        """
        signals = {fact.id: fact.signal for fact in incident.evidence}
        with self._lock:
            later = self._later[incident.id] = _Later(diagnosis, signals)
            if (kept := self._kept.get(incident.id)) is not None:
                self._kept[incident.id] = later.put_into(kept)
            self._shrink()

    def find(self, incident_id: str) -> Exhibit | None:
        """Returns what is kept of an incident."""
        with self._lock:
            return self._kept.get(incident_id)

    def all(self) -> list[Exhibit]:
        """Returns all of it, the incident that was seen last first."""
        with self._lock:
            return list(reversed(self._kept.values()))

    def forget(self, instance: str) -> None:
        """Lets the healthy step of an instance go that is gone; its incidents can still be read."""
        with self._lock:
            self._healthy.pop(instance, None)

    @property
    def nbytes(self) -> int:
        """Bytes held on to."""
        with self._lock:
            return self._size()

    def _exhibit(
        self, step: AssembledStep, report: Report, incident: Incident, spans: Held | None
    ) -> Exhibit:
        missing = _DIGESTS if spans is None else ""
        if incident.status == "resolved":  # this step shows that nothing is wrong any more
            spans, missing = None, _BEFORE
        return Exhibit(
            instance=step.instance,
            report=msgspec.structs.replace(report, incidents=[incident]),
            spans=spans,
            healthy=self._healthy.get(step.instance),
            whole=step.ending == "complete",
            missing=missing,
        )

    def _put(self, now: Exhibit, old: Exhibit | None) -> None:
        if old is not None and not _shows_more(now, old):
            now = _aged(old, now)
        later = self._later.get(now.incident.id)
        self._kept[now.incident.id] = now if later is None else later.put_into(now)

    def _shrink(self) -> None:
        for kept in (self._kept, self._healthy, self._later):
            while len(kept) > self._most:
                kept.popitem(last=False)
        while self._size() > self._max_bytes and self._let_go():
            pass

    def _let_go(self) -> bool:
        """Lets the oldest spans go; False if there are none left."""
        if len(self._healthy) > 1:  # the instance that is judged now keeps its own
            self._healthy.popitem(last=False)
            return True
        for name, exhibit in self._kept.items():
            if exhibit.spans is not None or exhibit.healthy is not None:
                self._kept[name] = Exhibit(
                    exhibit.instance, exhibit.report, None, None, exhibit.whole, _LET_GO
                )
                return True
        self._healthy.clear()
        return False

    def _size(self) -> int:
        shown = [held for one in self._kept.values() for held in (one.spans, one.healthy) if held]
        tables = {id(held.table): held for held in (*shown, *self._healthy.values())}
        texts = {id(held.table.strings): held.table.strings for held in tables.values()}
        # The newest table of texts is the receiver's own, whose bounds are its own, too.
        own = sum(strings.size_bytes for strings in list(texts.values())[:-1])
        return own + sum(held.nbytes for held in tables.values())


def _whole(step: AssembledStep) -> Held | None:
    """Returns the spans of a step that has work of GPUs; None of one that has digests alone."""
    spans = step.spans
    if not isinstance(spans, SpanTable) or not spans.on_gpu.any():
        return None
    return Held(spans, spans.nbytes)


def _shows_more(now: Exhibit, old: Exhibit) -> bool:
    """Whether the newer step is the one to draw: spans before digests, complete before not."""
    if now.incident.status == "resolved":
        return False
    return (now.spans is not None, now.whole) >= (old.spans is not None, old.whole)


def _aged(old: Exhibit, now: Exhibit) -> Exhibit:
    """Returns an exhibit whose incident has gone on, with the step that it had."""
    then, latest = old.incident, now.incident
    drawn = [step.step for step in old.report.steps if step.step not in latest.steps]
    incident = msgspec.structs.replace(
        then,
        status=latest.status,
        last_seen=latest.last_seen,
        occurrences=latest.occurrences,
        steps=[*drawn, *latest.steps],
        page=latest.page,
        victims=latest.victims,
        impact_ns=latest.impact_ns,
        score=latest.score,
        false_alarm_probability=latest.false_alarm_probability,
    )
    report = msgspec.structs.replace(old.report, incidents=[incident])
    return Exhibit(old.instance, report, old.spans, old.healthy, old.whole, old.missing)
