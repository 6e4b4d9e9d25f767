"""The diagnosis of each incident, made anew only when there is news about it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import msgspec

from kat_otel.analyzer import diagnose, embedded
from kat_otel.verdict import Incident

__all__ = ["Diagnoses"]

_REMEMBERED = 10_000


class Diagnoses:
    """Remembers the diagnoses of the latest 10,000 incidents, and on what they were made.

    A step that measures anew has other numbers, and claims quote them: then it is made anew too.
    """

    def __init__(self) -> None:
        embedded()  # read at start: the first incident is not to wait for it
        self._made: OrderedDict[str, tuple[tuple[Any, ...], dict[str, Any]]] = OrderedDict()

    def fill(self, incidents: Iterable[Incident]) -> None:
        """Sets the diagnosis of every incident."""
        for incident in incidents:
            incident.diagnosis = self._of(incident)

    def _of(self, incident: Incident) -> dict[str, Any]:
        # Facts are made for a step and shared or replaced, never changed: comparing them is cheap.
        ground = (
            incident.component,
            incident.component_confidence,
            incident.component_candidates,
            incident.kind,
            incident.culprit,
            incident.evidence,
        )
        known = self._made.get(incident.id)
        if known is not None and known[0] == ground:
            self._made.move_to_end(incident.id)
            return known[1]
        diagnosis = msgspec.to_builtins(diagnose(incident))
        self._made[incident.id] = ground, diagnosis
        self._made.move_to_end(incident.id)
        if len(self._made) > _REMEMBERED:
            self._made.popitem(last=False)
        return diagnosis
