"""What of an incident's life is worth telling again: log events, and steps that leave whole."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass

from kat_otel.config import LogsConfig, TracesConfig
from kat_otel.verdict import Incident

__all__ = ["IncidentJournal"]

_REMEMBERED = 10_000


@dataclass(slots=True)
class _Entry:
    told: tuple[object, ...] = ()
    told_at: float = 0.0
    whole_steps: int = 0
    whole_at: float = 0.0


class IncidentJournal:
    """Remembers what was told of each incident, the latest 10,000 of them."""

    def __init__(self, logs: LogsConfig, traces: TracesConfig) -> None:
        self._logs = logs
        self._traces = traces
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def reload(self, logs: LogsConfig, traces: TracesConfig) -> None:
        """Takes new settings; what was told stays told."""
        self._logs = logs
        self._traces = traces

    def changed(
        self, incidents: Sequence[Incident], now: float, silenced: Container[str] = ()
    ) -> list[Incident]:
        """Returns the incidents to log: new, different from what was told, or long not told.

        Args:
            incidents: as they are now.
            now: monotonic seconds.
            silenced: ids of those that are silenced.
        """
        found: list[Incident] = []
        for incident in incidents:
            entry = self._entry(incident.id)
            news = (
                incident.status,
                incident.page,
                incident.kind,
                incident.component,
                tuple(incident.culprit.ranks),
                (incident.diagnosis or {}).get("root_cause"),
                incident.id in silenced,
            )
            if news != entry.told or now - entry.told_at >= self._logs.ongoing_interval:
                entry.told, entry.told_at = news, now
                found.append(incident)
        return found

    def is_new(self, incident: Incident) -> bool:
        """Whether nothing was told of the incident so far."""
        entry = self._entries.get(incident.id)
        return entry is None or not entry.told

    def leaves_whole(self, incidents: Sequence[Incident], now: float) -> bool:
        """Whether a step with these active incidents leaves with all its spans.

        A fault that lasts for hours touches every step; the first steps and one now and then
        show all there is to see, and the backend survives the fault.
        """
        whole = False
        for incident in incidents:
            entry = self._entry(incident.id)
            if (
                entry.whole_steps < self._traces.whole_steps_per_incident
                or now - entry.whole_at >= self._traces.whole_interval
            ):
                entry.whole_steps += 1
                entry.whole_at = now
                whole = True
        return whole

    def _entry(self, incident_id: str) -> _Entry:
        entry = self._entries.setdefault(incident_id, _Entry())
        self._entries.move_to_end(incident_id)
        if len(self._entries) > _REMEMBERED:
            self._entries.popitem(last=False)
        return entry
