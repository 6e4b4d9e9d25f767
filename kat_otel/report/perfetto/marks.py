"""What the verdict adds to the recording: roles, expected times, arrows, and its own track."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.report.advice import KIND_MEANING, next_step
from kat_otel.report.perfetto.packets import Argument, Slice
from kat_otel.report.scene import Scene, scene_of, step_of
from kat_otel.report.sentences import by_impact, culprit_sentence, probability_text
from kat_otel.report.stage import Stage, stage_of
from kat_otel.spans import SpanTable
from kat_otel.verdict import Incident, Report
from kat_otel.wording import rank_list

__all__ = ["Mark", "Marks", "marks_of"]

_MAX_INCIDENTS: Final = 64
_MAX_STEPS: Final = 16
"""Steps aligned for the arrows and the clocks; incidents of others get their slice only."""
_MAX_MEETINGS: Final = 64
"""Collectives of an incident that get arrows: those where most was waited."""

Int64 = NDArray[np.int64]


@dataclass(slots=True)
class Mark:
    """What a span is in an incident."""

    incident: Incident
    role: str
    expected_ns: int | None = None
    waited_ns: int = 0
    flows: list[int] = field(default_factory=list[int])


@dataclass(slots=True)
class Marks:
    """The verdict beside the recording.

    Attributes:
        shift: what is taken from each rank's clock, ns, indexed by rank; the last serves none.
        comparable: whether the ranks' clocks could be aligned.
        rows: marks of spans, by row of the table.
        incidents: a slice for each incident, without its track.
        waits: row, begin, end, name and arrow of what happens inside a collective.
        flows: how many arrows' ids are taken.
    """

    shift: Int64
    comparable: bool
    rows: dict[int, Mark]
    incidents: list[Slice]
    waits: list[tuple[int, int, int, str, int]]
    flows: int = 0

    def arrow(self) -> int:
        """Returns the id of a new arrow."""
        self.flows += 1
        return self.flows


def marks_of(report: Report, table: SpanTable) -> Marks:
    """Finds the incidents' spans in ``table`` and who waited for whom.

    Clocks are corrected by the offsets of the incidents' steps (without incidents, of one step):
    by their median, so that one rank's spans keep their distances over the whole recording.
    """
    incidents = by_impact(report)[:_MAX_INCIDENTS]
    stages: dict[int | None, tuple[Stage, Int64]] = {}
    for step in _steps(table, incidents):
        rows = np.arange(len(table)) if step is None else np.flatnonzero(table.step == step)
        stage = stage_of(table, step)
        if stage is not None:
            stages[step] = (stage, rows)
    shift, comparable = _shift(table, [stage for stage, _ in stages.values()])
    marks = Marks(shift, comparable, {}, [], [])
    for number, incident in enumerate(incidents, 1):
        scene, rows = _scene(table, incident, stages)
        arrow = marks.arrow()
        if scene is not None:
            _mark(marks, incident, scene, rows, arrow)
        marks.incidents.append(_slice(report, incident, number, scene, marks=marks, arrow=arrow))
    return marks


def _steps(table: SpanTable, incidents: list[Incident]) -> list[int | None]:
    wanted = [*dict.fromkeys(step_of(table, incident) for incident in incidents)][:_MAX_STEPS]
    if wanted or not len(table):
        return wanted
    return [None if int(table.step.max()) < 0 else int(table.step[table.step >= 0].min())]


def _shift(table: SpanTable, stages: list[Stage]) -> tuple[Int64, bool]:
    ranks = max((r.rank for r in table.resources), default=0)
    shift = np.zeros(max(0, ranks) + 2, dtype=np.int64)
    known = [stage for stage in stages if stage.comparable]
    for rank in range(len(shift) - 1):
        mine = [int(s.shift[rank]) for s in known if np.isin(rank, s.ranks)]
        if mine:
            shift[rank] = int(np.median(mine))
    return shift, bool(known)


def _scene(
    table: SpanTable, incident: Incident, stages: dict[int | None, tuple[Stage, Int64]]
) -> tuple[Scene | None, Int64]:
    found = stages.get(step_of(table, incident))
    if found is None:
        return None, np.zeros(0, np.int64)
    return scene_of(found[0], incident), found[1]


def _mark(marks: Marks, incident: Incident, scene: Scene, rows: Int64, arrow: int) -> None:
    stage, culprits = scene.stage, set(incident.culprit.ranks)
    for row, expected in scene.refs.items():
        role = "culprit" if int(stage.table.rank[row]) in culprits else "victim"
        mark = marks.rows.setdefault(int(rows[row]), Mark(incident, role))
        mark.expected_ns = expected if mark.expected_ns is None else mark.expected_ns
    first = next((r for r in scene.refs if int(stage.table.rank[r]) in culprits), None)
    if first is not None:
        marks.rows[int(rows[first])].flows.append(arrow)
    if stage.comparable:
        _mark_meetings(marks, incident, scene, rows)


def _mark_meetings(marks: Marks, incident: Incident, scene: Scene, rows: Int64) -> None:
    """Splits the waiters' collectives at the culprit's arrival, and draws the arrows to them."""
    stage, found = scene.stage, scene.stage.found
    cited = np.isin(found.row, np.fromiter(scene.refs, dtype=np.int64)) & found.present
    mine = np.isin(found.ranks, incident.culprit.ranks)
    which = np.flatnonzero(cited.any(axis=1) & found.present[:, mine].any(axis=1))
    if not len(which):  # a slow kernel: its rank is late at the next collective
        which = np.flatnonzero(scene.in_window & found.present[:, mine].any(axis=1))
    waits = stage.waits
    for index in which[np.argsort(-waits[which].sum(axis=1))][:_MAX_MEETINGS].tolist():
        arrivals = np.where(mine & found.present[index], found.start[index], -1)
        late = int(arrivals.argmax())
        if int(found.start[index, late]) < int(found.last[index]):
            continue  # others came later still: nobody waited for this one
        rank = int(found.ranks[late])
        culprit = marks.rows.setdefault(
            int(rows[found.row[index, late]]), Mark(incident, "culprit")
        )
        for column in np.flatnonzero((waits[index] > 0) & ~mine).tolist():
            row = int(rows[found.row[index, column]])
            arrow = marks.arrow()
            culprit.flows.append(arrow)
            waited = marks.rows.setdefault(row, Mark(incident, "victim"))
            waited.waited_ns = int(waits[index, column])
            # on the written clock, which is the median of several steps' offsets
            moved = _moved(marks, stage, int(found.ranks[column]))
            begins = int(found.start[index, column]) + moved
            arrives = int(found.start[index, late]) + _moved(marks, stage, rank)
            ends = int(found.end[index, column]) + moved
            marks.waits.append((row, begins, min(arrives, ends), f"waits for rank {rank}", 0))
            marks.waits.append((row, min(arrives, ends), ends, "transfer", arrow))


def _moved(marks: Marks, stage: Stage, rank: int) -> int:
    return int(stage.shift[rank]) - int(marks.shift[rank])


def _slice(
    report: Report,
    incident: Incident,
    number: int,
    scene: Scene | None,
    *,
    marks: Marks,
    arrow: int,
) -> Slice:
    """Returns the incident as a slice: over its time in the step that is drawn, else its life."""
    first, last = incident.first_seen, max(incident.last_seen, incident.first_seen + 1)
    if scene is not None:
        stage = scene.stage
        rank = next((k for k in incident.culprit.ranks if k < len(stage.shift)), -1)
        moved = _moved(marks, stage, rank) if rank >= 0 else 0
        first, last = scene.window[0] + moved, scene.window[1] + moved
    sentence = culprit_sentence(incident, report.source.ranks)
    return Slice(
        start_ns=first,
        end_ns=last,
        track=0,
        name=f"{number}. {sentence}",
        categories=["kat.incident", incident.kind, incident.component],
        arguments=dict(_arguments(incident, sentence)),
        flows=[arrow] if scene is not None and scene.refs else [],
    )


def _arguments(incident: Incident, sentence: str) -> Iterator[tuple[str, Argument]]:
    yield "sentence", sentence
    yield "kind", incident.kind
    yield "meaning", KIND_MEANING[incident.kind]
    yield "component", incident.component
    yield "component_confidence", float(incident.component_confidence)
    yield "cost_per_step_ns", incident.impact_ns
    yield "culprit_ranks", rank_list(incident.culprit.ranks) or incident.scope
    yield "side", "sure" if incident.culprit.sure else "unknown"
    yield "waiting_ranks", rank_list(incident.victims) or "-"
    yield "score", float(incident.score)
    yield "false_alarm", probability_text(incident.false_alarm_probability)
    yield "status", incident.status
    yield "incident_id", incident.id
    for evidence in incident.evidence[:16]:
        yield f"evidence_{evidence.id}", evidence.text
    summary: object = (incident.diagnosis or {}).get("summary")
    if isinstance(summary, str) and summary:
        yield "diagnosis", summary
    yield "next", next_step(incident)
