"""The life of incidents across steps: open at first sight, ongoing, resolved after silence."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec

from kat_otel.ttad.settings import Settings
from kat_otel.verdict import Incident

__all__ = ["Life", "Tracker"]

_MAX_STEPS_LISTED = 1000
MAX_LIVE = 1000


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
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._live: OrderedDict[tuple[object, ...], Life] = OrderedDict()

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

    def update(self, seen: list[Incident], step_length_ns: float) -> list[Incident]:
        """Takes the incidents of one step, in step order.

        Returns:
            The incidents that this step touched or resolved, with their whole life so far.
        """
        touched: list[Incident] = []
        keys: set[tuple[object, ...]] = set()
        for incident in seen:
            key = self._key(incident)
            if key in keys:
                continue
            keys.add(key)
            touched.append(self._merge(key, incident, step_length_ns))
        for key in [k for k in self._live if k not in keys]:
            life = self._live[key]
            life.silent += 1
            if life.silent >= self._settings.resolve_after:
                life.incident.status = "resolved"
                touched.append(life.incident)
                del self._live[key]
        while len(self._live) > MAX_LIVE:
            self._live.popitem(last=False)
        return sorted(touched, key=lambda i: -i.impact_ns)

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
                first_seen=old.first_seen,
                last_seen=incident.last_seen,
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
