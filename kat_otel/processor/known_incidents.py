"""The incidents that can be spoken of: those that live, and the last that were resolved."""

from __future__ import annotations

import threading
from collections import OrderedDict
from difflib import get_close_matches
from typing import Final, NamedTuple

from kat_otel.verdict import Incident

__all__ = ["Known", "KnownIncidents", "UnknownIncidentError"]

_MOST_LIVE: Final = 1_000
_MOST_RESOLVED: Final = 500
_SHORTEST: Final = 4
"""Digits of an id that may stand for all of it, if no other begins with them."""
_NAMED: Final = 5


class UnknownIncidentError(LookupError):
    """No incident, or more than one, is meant; the message names the nearest."""


class Known(NamedTuple):
    """An incident, and whose it is."""

    instance: str
    incident: Incident


class KnownIncidents:
    """Written by the judging thread, read by ports."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: OrderedDict[tuple[str, str], Known] = OrderedDict()
        self._resolved: OrderedDict[str, Known] = OrderedDict()

    def update(self, instance: str, incident: Incident) -> Incident | None:
        """Takes an incident as it is now; returns it as it was before, None if it is new here."""
        key = (instance, incident.id)
        with self._lock:
            before = self._live.pop(key, None)
            if incident.status == "resolved":
                self._resolve(Known(instance, incident))
            else:
                self._resolved.pop(incident.id, None)
                self._live[key] = Known(instance, incident)
                if len(self._live) > _MOST_LIVE:
                    self._resolve(self._live.popitem(last=False)[1])
        return None if before is None else before.incident

    def forget(self, instance: str) -> None:
        """Takes the incidents of an instance that is gone from those that live."""
        with self._lock:
            for key in [key for key in self._live if key[0] == instance]:
                self._resolve(self._live.pop(key))

    def live(self) -> list[Known]:
        """Returns those that are not resolved."""
        with self._lock:
            return list(self._live.values())

    def find(self, said: str) -> Known:
        """Returns the incident with an id, or with an id that begins like this.

        Raises:
            UnknownIncidentError: there is none, or several; the message names the nearest.
        """
        with self._lock:
            known = {one.incident.id: one for one in self._resolved.values()}
            known |= {one.incident.id: one for one in self._live.values()}
            live = [one.incident.id for one in reversed(self._live.values())]
        if said in known:
            return known[said]
        said = said[:64]
        meant = [one for one in known if one.startswith(said)] if len(said) >= _SHORTEST else []
        if len(meant) == 1:
            return known[meant[0]]
        if meant:
            raise UnknownIncidentError(f"{said} may be {_listed(meant)}: give more of the id")
        near = get_close_matches(said, known, _NAMED, cutoff=0.6)
        if near:
            raise UnknownIncidentError(f"no incident {said} is known; did you mean {_listed(near)}")
        raise UnknownIncidentError(
            f"no incident {said} is known; live are {_listed(live) or 'none'}"
            " — kat top shows them all"
        )

    def _resolve(self, known: Known) -> None:
        self._resolved[known.incident.id] = known
        self._resolved.move_to_end(known.incident.id)
        if len(self._resolved) > _MOST_RESOLVED:
            self._resolved.popitem(last=False)


def _listed(ids: list[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more
