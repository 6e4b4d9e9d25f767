"""Where to look: the step of an incident that is drawn, its spans, and the time around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kat_otel.report.stage import Stage
from kat_otel.spans import SpanTable
from kat_otel.verdict import Incident

__all__ = ["Scene", "scene_of", "step_of"]

_MAX_REFS = 500


@dataclass(frozen=True, slots=True)
class Scene:
    """An incident in its step.

    Attributes:
        stage: the step.
        refs: rows that the incident cites, with their expected duration (ns) or None.
        window: the incident's begin and end, Unix ns.
    """

    stage: Stage
    refs: dict[int, int | None]
    window: tuple[int, int]

    @property
    def in_window(self) -> NDArray[np.bool_]:
        """Which collectives the last rank reaches inside the window, bool ``(m,)``."""
        last = self.stage.found.last
        return (last >= self.window[0]) & (last <= self.window[1])


def step_of(table: SpanTable, incident: Incident) -> int | None:
    """Returns the step to draw; None if the table has none of the incident's steps.

    It is the step of the incident's first span, which is the one that deviates most.
    """
    present = np.isin(table.step, np.array(incident.steps, dtype=np.int32))
    if not present.any():
        return None
    if incident.spans:
        ref = incident.spans[0]
        same = present & (table.start_ns == ref.start_unix_nano) & (table.rank == ref.rank)
        if same.any():
            return int(table.step[np.flatnonzero(same)[0]])
    return int(table.step[present].max())


def scene_of(stage: Stage, incident: Incident) -> Scene:
    """Finds the incident's spans and the time around them; the whole step if it has none."""
    refs = _refs_in(stage.table, incident)
    return Scene(stage, refs, _window(stage, refs, incident) or (stage.origin, stage.end))


def _refs_in(table: SpanTable, incident: Incident) -> dict[int, int | None]:
    refs = incident.spans[:_MAX_REFS]
    wanted = np.array([ref.start_unix_nano for ref in refs], dtype=np.int64)
    at = {
        (int(table.rank[row]), int(table.start_ns[row]), table.name_of(int(row))): int(row)
        for row in np.flatnonzero(np.isin(table.start_ns, wanted) & table.on_gpu)
    }
    rows = [(at.get((ref.rank, ref.start_unix_nano, ref.name)), ref.expected_ns) for ref in refs]
    return {row: expected for row, expected in rows if row is not None}


def _window(
    stage: Stage, refs: dict[int, int | None], incident: Incident
) -> tuple[int, int] | None:
    """Begin and end of the incident's spans and of the collectives they delay; None without.

    The window of a span in a collective holds the arrivals of all ranks, so that the waiters
    are seen from the beginning.
    """
    if not refs:
        return None
    table, found = stage.table, stage.found
    rows = np.array(list(refs), dtype=np.int64)
    start = table.start_ns[rows] - stage.shift[table.rank[rows]]
    low, high = int(start.min()), int((start + table.duration_ns[rows]).max())
    member = np.isin(found.row, rows).any(axis=1) if len(found) else np.zeros(0, dtype=np.bool_)
    if len(found) and not member.any():
        # a slow kernel: what waits for it is the next collective of its rank
        mine = found.present & np.isin(found.ranks, incident.culprit.ranks)[None, :]
        after = np.where(mine, found.start, 0).max(axis=1)
        member = (np.arange(len(found)) == int(np.argmax(after >= high))) & (after >= high)
    present = found.present[member]
    low = min(low, int(np.where(present, found.start[member], low).min(initial=low)))
    high = max(high, int(np.where(present, found.end[member], high).max(initial=high)))
    return low, high
