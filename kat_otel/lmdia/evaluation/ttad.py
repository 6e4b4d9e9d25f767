"""TTAD on a case, as `kat process` runs it: step after step, then the hardware's word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from kat_otel.config import HardwareConfig
from kat_otel.hardware import HardwareStore
from kat_otel.kernels import Semantics, semantics
from kat_otel.lmdia.hardware import Request
from kat_otel.lmdia.scoring.alarm import Alarm
from kat_otel.spans import Resource, SpanTable
from kat_otel.ttad import Detector
from kat_otel.ttad.components import refine
from kat_otel.ttad.concerned import readings_on
from kat_otel.ttad.settings import Settings
from kat_otel.verdict import Incident, Report, SpanRef

__all__ = ["Watch"]

_OF_THE_GROUP: Final = frozenset({"slow_transfer", "regression", "imbalance"})
"""Kinds that say of a whole group's spans that they are slow."""


class Watch:
    """A detector that watches one case, and remembers what it said.

    Args:
        settings: of the detector.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._detector = Detector(settings)
        self._least = (settings or Settings()).page_impact_fraction
        self._latest: dict[str, Incident] = {}
        self._lengths: dict[int, int] = {}

    def see(self, table: SpanTable) -> Report:
        """Judges the next step, and returns what was said of it."""
        report = self._detector.judge(table)
        self._latest.update({i.id: i for i in report.incidents})
        self._lengths |= {s.step: s.duration_ns for s in report.steps}
        return report

    def alarms(self, requests: Iterable[Request], workers: Sequence[Resource]) -> list[Alarm]:
        """Returns what was said, in the words that the scorer compares.

        Args:
            requests: metrics and logs of the machines; none leave the component to the traces.
            workers: of the case.
        """
        store = HardwareStore(HardwareConfig())
        for request in requests:
            store.add(request.signal, request.data)
        return [self._alarm(i, workers, store) for i in self._latest.values()]

    def _alarm(
        self, incident: Incident, workers: Sequence[Resource], store: HardwareStore
    ) -> Alarm:
        refined = refine(incident, readings_on(incident, workers, store))
        longest = max((self._lengths.get(s, 0) for s in incident.steps), default=0)
        share = incident.impact_ns / longest if longest else 0.0
        return Alarm(
            steps=tuple(sorted(incident.steps)),
            ranks=tuple(incident.culprit.ranks),
            sure=incident.culprit.sure,
            share=share,
            page=incident.page,
            finding=share < self._least and not incident.page,
            kind=incident.kind,
            candidates=tuple(c.component for c in incident.component_candidates),
            component=refined.component,
            spans=tuple(int(s.span_id, 16) for s in incident.spans if _blamed(s, incident)),
        )


def _blamed(span: SpanRef, incident: Incident) -> bool:
    """Whether the span is said to be anomalous: not if it shows only who waited for whom."""
    if incident.kind in _OF_THE_GROUP:
        return True
    of_culprit = span.rank in incident.culprit.ranks
    return of_culprit and semantics(span.name) == Semantics.NONE
