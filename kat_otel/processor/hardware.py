"""Joins what hardware said to the incidents of a step: readings by device, host, rank and time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from kat_otel.config import HardwareConfig
from kat_otel.hardware import HardwareStore
from kat_otel.spans import SpanTable
from kat_otel.ttad.components import refine
from kat_otel.ttad.concerned import readings_on
from kat_otel.verdict import Component, ComponentCandidate, Evidence, Incident, Report

__all__ = ["HardwareJoin"]

_EVERY: Final = 1.0
"""Seconds between two looks at the readings for an incident: exporters are not faster."""
_REMEMBERED: Final = 1_000


@dataclass(slots=True)
class _Told:
    at: float
    component: Component | None = None
    candidates: Sequence[ComponentCandidate] = ()
    facts: Sequence[Evidence] = ()


class HardwareJoin:
    """Keeps the readings and judges components by them; used in the judging thread.

    Attributes:
        store: what hardware said lately.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self._enabled = config.enabled
        self.store = HardwareStore(config)
        self._told: OrderedDict[str, _Told] = OrderedDict()

    def reload(self, config: HardwareConfig) -> None:
        """Takes whether readings are used at all; the store's sizes stay."""
        self._enabled = config.enabled

    def take(self, signal: Literal["metrics", "logs"], data: bytes) -> None:
        """Reads a request that is passed on."""
        if self._enabled:
            self.store.add(signal, data)

    def explain(self, report: Report, table: SpanTable, now: float) -> None:
        """Replaces the incidents of a report by those that the readings refine.

        Args:
            report: of one step; its ``incidents`` are changed.
            table: the step, for who runs where.
            now: monotonic seconds.
        """
        if self._enabled and report.incidents and len(self.store):
            report.incidents = [self._refined(i, table, now) for i in report.incidents]

    def _refined(self, incident: Incident, table: SpanTable, now: float) -> Incident:
        told = self._told.get(incident.id)
        if told is None or now - told.at >= _EVERY:
            return self._anew(incident, table, now)
        if told.component is None:
            return incident
        led = incident.evidence[:2]
        return msgspec.structs.replace(
            incident,
            component=told.component,
            component_candidates=list(told.candidates),
            component_confidence=told.candidates[0].probability,
            evidence=[*led, *told.facts, *incident.evidence[2:]],
        )

    def _anew(self, incident: Incident, table: SpanTable, now: float) -> Incident:
        readings = readings_on(incident, table.resources, self.store)
        refined = refine(incident, readings)
        told = _Told(now)
        if refined is not incident:
            told.component = refined.component
            told.candidates = refined.component_candidates
            told.facts = [e for e in refined.evidence if e.id.startswith("H")]
        self._told[incident.id] = told
        self._told.move_to_end(incident.id)
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return refined
