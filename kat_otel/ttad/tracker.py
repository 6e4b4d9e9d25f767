"""The life of incidents across steps: open at first sight, ongoing, resolved after silence."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import msgspec

from kat_otel.spans import SpanTable
from kat_otel.ttad.settings import Settings
from kat_otel.verdict import Incident

__all__ = ["Life", "Tracker"]

_MAX_STEPS_LISTED = 1000
MAX_LIVE = 1000
_OLD_NS: Final = 3_600_000_000_000
"""A step that began up to an hour before an incident's end is old; beyond, a clock jumped."""


@dataclass(slots=True)
class Life:
    """An incident that goes on, with what decides about it.

    Attributes:
        incident: as last reported.
        impacts: sum of its impacts over its occurrences, ns.
        silent: steps since it was last seen.
        kinds: impacts by the kind that single steps showed, ns.
    """

    incident: Incident
    impacts: float
    silent: int = 0
    kinds: dict[str, float] = field(default_factory=dict[str, float])


class Tracker:
    """The life of incidents: open at first sight, ongoing while seen, resolved after silence.

    One culprit (or one group, where no rank is to blame) is one incident, also if single
    steps show another kind: the kind that cost most in total is the incident's.

    An incident's id says who, of which instance, since when it is watched, and how often it was
    resolved before. While an instance moves, the processor that it left judges its last steps and
    the next one the first: both open the same fault, under the same id.

    Attributes:
        born: begin of the first step that was judged, Unix ns; 0 before.
        resolved: how often an incident was resolved, by its first id.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._live: OrderedDict[tuple[object, ...], Life] = OrderedDict()
        self.born = 0
        self.resolved: OrderedDict[str, int] = OrderedDict()

    def reload(self, settings: Settings) -> None:
        """Takes new thresholds; incidents go on."""
        self._settings = settings

    def __len__(self) -> int:
        return len(self._live)

    def lives(self) -> list[Life]:
        """Returns the incidents that go on, the oldest first; nothing is copied."""
        return list(self._live.values())

    def adopt(self, life: Life) -> None:
        """Goes on with an incident that was tracked elsewhere."""
        self._live[self._key(life.incident)] = life

    def update(
        self, seen: list[Incident], step_length_ns: float, table: SpanTable
    ) -> list[Incident]:
        """Takes the incidents of one step, in step order.

        Args:
            seen: what the step showed.
            step_length_ns: how long it took.
            table: its spans. An old step, which a processor finds in its log when it comes back,
                does not tell that an incident of later steps is over.

        Returns:
            The incidents that this step touched or resolved, with their whole life so far.
        """
        instance = table.resources[0].instance if table.resources else ""
        begun_ns = int(table.start_ns.min()) if len(table) else 0
        return self.step(seen, step_length_ns, instance, begun_ns)

    def step(
        self, seen: list[Incident], step_length_ns: float, instance: str, begun_ns: int
    ) -> list[Incident]:
        """As :meth:`update`, for a step of ``instance`` that began at ``begun_ns`` (Unix ns)."""
        self.born = self.born or begun_ns
        touched: list[Incident] = []
        keys: set[tuple[object, ...]] = set()
        for incident in seen:
            key = self._key(incident)
            if key in keys:
                continue
            keys.add(key)
            if key not in self._live:
                incident.id = self._id(instance, key)
            touched.append(self._merge(key, incident, step_length_ns))
        for key in [k for k in self._live if k not in keys]:
            life = self._live[key]
            if 0 < life.incident.last_seen - begun_ns <= _OLD_NS:
                continue
            life.silent += 1
            if life.silent >= self._settings.resolve_after:
                # A copy: the report of an earlier step may still be under way with the other.
                touched.append(msgspec.structs.replace(life.incident, status="resolved"))
                del self._live[key]
                self._count_resolved(self._first_id(instance, key))
        while len(self._live) > MAX_LIVE:
            self._live.popitem(last=False)
        return sorted(touched, key=lambda i: -i.impact_ns)

    def _first_id(self, instance: str, key: tuple[object, ...]) -> str:
        return _digest(f"{instance}|{'|'.join(map(str, key))}|{self.born}")

    def _id(self, instance: str, key: tuple[object, ...]) -> str:
        first_id = self._first_id(instance, key)
        times = self.resolved.get(first_id, 0)
        return _digest(f"{first_id}|{times}") if times else first_id

    def _count_resolved(self, first_id: str) -> None:
        self.resolved[first_id] = self.resolved.get(first_id, 0) + 1
        self.resolved.move_to_end(first_id)
        while len(self.resolved) > MAX_LIVE:
            self.resolved.popitem(last=False)

    def _key(self, incident: Incident) -> tuple[object, ...]:
        ranks = tuple(incident.culprit.ranks)
        return ranks or (incident.scope, incident.group, incident.kind)

    def _merge(
        self, key: tuple[object, ...], incident: Incident, step_length_ns: float
    ) -> Incident:
        life = self._live.get(key)
        weight = float(max(incident.impact_ns, 1))
        if life is None:
            life = self._live[key] = Life(incident, weight, kinds={incident.kind: weight})
        else:
            old, life.silent = life.incident, 0
            life.impacts += weight
            life.kinds[incident.kind] = life.kinds.get(incident.kind, 0.0) + weight
            occurrences = old.occurrences + 1
            usual = max(life.kinds, key=lambda k: life.kinds[k])
            life.incident = msgspec.structs.replace(
                incident if incident.kind == usual else old,
                id=old.id,
                status="ongoing",
                first_seen=min(old.first_seen, incident.first_seen),
                last_seen=max(old.last_seen, incident.last_seen),
                occurrences=occurrences,
                steps=[*old.steps, *incident.steps][-_MAX_STEPS_LISTED:],
                page=old.page,
                victims=sorted({*old.victims, *incident.victims}),
                impact_ns=round(life.impacts / occurrences),
                score=max(old.score, incident.score),
                false_alarm_probability=min(
                    old.false_alarm_probability, incident.false_alarm_probability
                ),
            )
        now = life.incident
        if (
            now.occurrences >= self._settings.page_occurrences
            and now.impact_ns >= self._settings.page_impact_fraction * step_length_ns
            and now.culprit.sure
        ):
            now.page = True
        return now


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
