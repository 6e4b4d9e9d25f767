"""What a processor sees now, in one object that ``kat top`` and the debug page share."""

from __future__ import annotations

import time
from dataclasses import asdict
from itertools import islice
from typing import Final

import msgspec

from kat_otel.live import LeftOut, Live, LiveCondition, LiveIncident
from kat_otel.processor.build import kat_version
from kat_otel.processor.conditions import Conditions
from kat_otel.processor.feedback import FeedbackBook
from kat_otel.processor.known_incidents import Known
from kat_otel.processor.recent import Recent
from kat_otel.processor.sentence import summary_of
from kat_otel.processor.silences import Silences

__all__ = ["LiveView"]

_MOST_INSTANCES: Final = 256
_MOST_INCIDENTS: Final = 200
_MOST_SILENCES: Final = 200
_MOST_RANKS: Final = 100_000
"""Ranks that all incidents name together: a fleet's victims are many."""
_EVIDENCE: Final = 4


class LiveView:
    """Puts the object together; from any thread.

    Args:
        recent: the last steps and incidents.
        conditions: whether the processor is well.
        silences, feedback: of operators; None if nobody could say any.

    Attributes:
        silences, feedback: as they are kept.
    """

    def __init__(
        self,
        recent: Recent,
        conditions: Conditions,
        silences: Silences | None = None,
        feedback: FeedbackBook | None = None,
    ) -> None:
        self._recent = recent
        self._conditions = conditions
        self.silences = silences or Silences()
        self.feedback = feedback or FeedbackBook()

    def read(self) -> Live:
        """Returns it as it is now."""
        instances = list(self._recent.instances.read())
        known = self._recent.incidents()
        silences = self.silences.active()
        incidents = self._incidents(known)
        return Live(
            version=kat_version(),
            at_unix_nano=time.time_ns(),
            conditions=[LiveCondition(**asdict(one)) for one in self._conditions()],
            instances=instances[:_MOST_INSTANCES],
            incidents=incidents,
            silences=silences[:_MOST_SILENCES],
            left_out=LeftOut(
                instances=max(0, len(instances) - _MOST_INSTANCES),
                incidents=len(known) - len(incidents),
                silences=max(0, len(silences) - _MOST_SILENCES),
            ),
        )

    def _incidents(self, known: list[Known]) -> list[LiveIncident]:
        verdicts = self.feedback.verdicts()
        found: list[LiveIncident] = []
        ranks = 0
        for instance, incident in islice(known, _MOST_INCIDENTS):
            ranks += len(incident.victims) + len(incident.culprit.ranks)
            if ranks > _MOST_RANKS:
                break
            silence = self.silences.of(instance, incident)
            found.append(
                LiveIncident(
                    instance=instance,
                    id=incident.id,
                    sentence=summary_of(incident),
                    kind=incident.kind,
                    component=incident.component,
                    page=incident.page and silence is None,
                    occurrences=incident.occurrences,
                    impact_ns=incident.impact_ns,
                    first_seen_ns=incident.first_seen,
                    last_seen_ns=incident.last_seen,
                    silence=silence,
                    feedback=verdicts.get(incident.id),
                    report=msgspec.structs.replace(
                        incident, steps=[], spans=[], evidence=incident.evidence[:_EVIDENCE]
                    ),
                )
            )
        return sorted(found, key=lambda i: (not i.page, i.silence is not None, -i.impact_ns))
