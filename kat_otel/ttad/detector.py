"""TTAD put together: the order of the steps, for one step online and for whole files."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import array_api_compat.numpy as numpy_xp
import numpy as np

from kat_otel.kernels import classify
from kat_otel.spans import UNKNOWN, SpanTable
from kat_otel.ttad.align import Alignment, align
from kat_otel.ttad.anchors import anchors
from kat_otel.ttad.covariates import attention, levelled
from kat_otel.ttad.digests import DigestDetector, is_digest_step
from kat_otel.ttad.durations import durations, local_work
from kat_otel.ttad.features import Features, features, shift_clocks
from kat_otel.ttad.groups import group_changes
from kat_otel.ttad.healthy import HealthyStep, ShortWay
from kat_otel.ttad.history import FEW_RANKS, Expectation, History
from kat_otel.ttad.incidents import change_incident, suspect_incident
from kat_otel.ttad.judged import Judged
from kat_otel.ttad.lateness import lateness
from kat_otel.ttad.load_history import LoadHistory, load_of
from kat_otel.ttad.meetings import clock_offsets, meetings
from kat_otel.ttad.settings import Settings
from kat_otel.ttad.stages import slow_stages
from kat_otel.ttad.summary import (
    abstention,
    instance_among,
    instance_of,
    judgement_notes,
    merge_clocks,
    notes_on,
    source_among,
    source_of,
    step_of,
)
from kat_otel.ttad.suspects import suspects
from kat_otel.ttad.tracker import Tracker
from kat_otel.verdict import Clock, Coverage, Incident, Report, Step

__all__ = ["Detector", "analyze"]


class Detector:
    """Judges the steps of one instance in order; keeps their history and the life of incidents.

    Args:
        settings: thresholds.
        baseline: a healthy recording of the same work: believed at once, where history has
            to be gathered first.
        xp: array namespace for the statistics (``array_api_compat.numpy`` if not given).

    Attributes:
        history: healthy steps.
        tracker: incidents that go on.
        gaps: launch gaps of earlier steps, ns. These three are all that it has learnt.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        baseline: SpanTable | None = None,
        xp: Any = numpy_xp,
    ) -> None:
        self._settings = settings or Settings()
        self._xp = xp
        self.history = History(self._settings.history_steps)
        self._by_load = LoadHistory(self._settings.history_steps)
        self._baseline: History | None = None
        self.tracker = Tracker(self._settings)
        self._digests = DigestDetector(self._settings, self.tracker)
        self._short_way = ShortWay(self._settings)
        self.gaps: deque[float] = deque(maxlen=2 * self._settings.history_steps)
        if baseline is not None:
            self._baseline = History(self._settings.history_steps)
            for step in np.unique(baseline.step).tolist():
                self._learn(baseline.take(baseline.step == step), self._baseline)

    def reload(self, settings: Settings) -> None:
        """Takes new thresholds between two steps; what was learnt stays.

        ``history_steps`` is that of the beginning: histories are rings of that size.
        """
        self._settings = settings
        self.tracker.reload(settings)
        self._digests.reload(settings)
        self._short_way.reload(settings)

    def judge(self, table: SpanTable) -> Report:
        """Judges one complete step; without GPU work by the digests that its workers sent.

        Args:
            table: the spans of all ranks of the step.

        Returns:
            A report whose incidents are those that this step touched or resolved.
        """
        whole = self._baseline is None and not self._settings.without
        if whole and self._xp is numpy_xp:
            seen = self._short_way.look(table, self.history, self.gaps)
            if seen is not None:
                return self._healthy(table, seen)
        if self._settings.digests and is_digest_step(table):
            return self._digests.judge(table)
        table, meaning = classify(table, self._settings.collectives)
        alignment = align(table, meaning)
        if "peers" in self._settings.without:
            alignment = replace(alignment, peers=np.arange(len(alignment.ranks), dtype=np.int32))
        step = int(table.step[0]) if len(table) else -1
        measured = features(table, alignment)
        offset, clock = clock_offsets(table, measured, alignment)
        if offset.any():
            measured = shift_clocks(measured, offset)
        reason = abstention(table, alignment, self._settings)
        incidents: list[Incident] = []
        if reason is None and alignment.total:
            incidents = self._incidents(table, step, alignment, measured)
        touched = self.tracker.update(incidents, measured.longest_ns, table)
        return Report(
            instance=instance_of(table),
            source=source_of(table, clock),
            coverage=Coverage(
                spans=len(table),
                kernels=alignment.total,
                aligned=alignment.matched,
                unmatched=alignment.total - alignment.matched,
                notes=judgement_notes(table, alignment, clock),
            ),
            steps=[step_of(step, alignment, measured)],
            incidents=touched,
            abstained=reason,
        )

    def _healthy(self, table: SpanTable, seen: HealthyStep) -> Report:
        """Learns from a step in which nothing deviates; returns its report."""
        if seen.entry_gap is not None:
            self.gaps.append(seen.entry_gap)
        self.history.add(seen.key, seen.shape, seen.durations, seen.transfers)
        clock = Clock(state="aligned", max_offset_ns=round(seen.largest_offset))
        world = max((r.world_size for r in table.resources), default=UNKNOWN)
        instance = table.resources[0].instance
        begin, finish = round(seen.begin), round(seen.finish)
        launches = seen.launches, seen.work, seen.launched
        return Report(
            instance=instance_among(table.resources),
            source=source_among(table.resources, clock),
            coverage=Coverage(
                spans=len(table),
                kernels=seen.work,
                aligned=seen.work,
                unmatched=0,
                notes=notes_on(seen.ranks, world, clock, launches, 1),
            ),
            steps=[
                Step(
                    step=int(table.step[0]),
                    start_unix_nano=seen.origin_ns + begin,
                    duration_ns=finish - begin,
                    ranks=list(seen.ranks),
                )
            ],
            incidents=self.tracker.step([], seen.longest, instance, seen.origin_ns),
            abstained=None,
        )

    def judge_steps(self, table: SpanTable, bounds: Sequence[int]) -> list[Report]:
        """Judges consecutive complete steps that have digests and no GPU work, together.

        Args:
            table: the spans of all ranks, step by step.
            bounds: the first row of each step, and behind the last the number of rows.

        Returns:
            The reports that :meth:`judge` would return step after step.
        """
        if self._settings.digests:
            return self._digests.judge_steps(table, bounds)
        parts = (np.arange(first, last) for first, last in pairwise(bounds))
        return [self.judge(table.take(part)) for part in parts]

    def _incidents(
        self, table: SpanTable, step: int, alignment: Alignment, measured: Features
    ) -> list[Incident]:
        settings, xp = self._settings, self._xp
        met = meetings(table, measured, alignment)
        bound = anchors(table, measured, alignment, met)
        gaps = () if "history" in settings.without else self.gaps
        usual = self._expectation(alignment)
        load = None if usual else load_of(table, alignment, local_work(measured, alignment))
        if usual is None and load is not None and "history" not in settings.without:
            usual = self._by_load.expect(alignment, load, least=settings.min_history)
        few = len(alignment.ranks) <= FEW_RANKS or "peers" in settings.without
        before = usual.duration if usual and (few or load is not None) else None
        if load is not None and before is not None:
            before = np.where(attention(table, alignment)[:, None], 0.0, before)
        work = durations(
            table,
            measured,
            alignment,
            before if few else None,
            settings,
            by_load=None if few or load is None else before,
            xp=xp,
        )
        level = levelled(met, measured, work.unlike, work.expected)
        late = lateness(level, bound, alignment, measured, settings, gaps=gaps, xp=xp)
        judged = Judged(table, step, alignment, measured, met, bound, late, work)
        blamed = suspects(judged, settings)
        changed = [*group_changes(judged, usual, settings), *slow_stages(judged, settings)]
        if not blamed and not changed:
            if late.entry_gap is not None:
                self.gaps.append(late.entry_gap)
            self.history.remember(alignment, measured, met)
            if load is not None:
                self._by_load.remember(alignment, measured, met, load)
        incidents = [suspect_incident(s, judged, settings) for s in blamed]
        incidents += [change_incident(c, judged, settings) for c in changed]
        return sorted(incidents, key=lambda i: -i.impact_ns)

    def _expectation(self, alignment: Alignment) -> Expectation | None:
        if "history" in self._settings.without:
            return None
        if self._baseline is not None:
            usual = self._baseline.expect(alignment, mapped=True)
            return None if usual is None else replace(usual, trusted=True)
        usual = self.history.expect(alignment)
        return usual if usual and usual.steps >= self._settings.min_history else None

    def _learn(self, table: SpanTable, into: History) -> None:
        table, meaning = classify(table, self._settings.collectives)
        alignment = align(table, meaning)
        measured = features(table, alignment)
        offset, _ = clock_offsets(table, measured, alignment)
        measured = shift_clocks(measured, offset)
        into.remember(alignment, measured, meetings(table, measured, alignment))


def analyze(
    table: SpanTable,
    *,
    baseline: SpanTable | None = None,
    files: Sequence[str] = (),
    notes: Sequence[str] = (),
    settings: Settings | None = None,
    xp: Any = numpy_xp,
) -> Report:
    """Judges whole recordings: every step in order, incidents merged over their life.

    Args:
        table: spans of one instance, any number of ranks and steps.
        baseline: a healthy recording of the same work.
        files: names of the sources, for the report.
        notes: what the readers had to say.
        settings: thresholds.
        xp: array namespace for the statistics.
    """
    detector = Detector(settings, baseline=baseline, xp=xp)
    steps: list[int] = np.unique(table.step[table.on_gpu]).tolist()
    reports = [detector.judge(table.take(table.step == step)) for step in steps]
    reports = reports or [detector.judge(table)]
    latest: dict[str, Incident] = {}
    for report in reports:
        latest.update({i.id: i for i in report.incidents})
    said = list(dict.fromkeys([*notes, *(n for r in reports for n in r.coverage.notes)]))
    abstained = [r.abstained for r in reports]
    source = source_of(table, merge_clocks([r.source.clock for r in reports]))
    source.files = list(files)
    return Report(
        instance=instance_of(table),
        source=source,
        coverage=Coverage(
            spans=len(table),
            kernels=sum(r.coverage.kernels for r in reports),
            aligned=sum(r.coverage.aligned for r in reports),
            unmatched=sum(r.coverage.unmatched for r in reports),
            notes=said,
        ),
        steps=[s for r in reports for s in r.steps],
        incidents=sorted(latest.values(), key=lambda i: -i.impact_ns),
        abstained=abstained[0] if all(abstained) else None,
    )
