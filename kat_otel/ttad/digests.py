"""Judges digests: which rank makes the others wait, from at most 4 KB a rank and step.

:func:`judge_many` judges many steps of one kind at once and gives flags; it is what a fleet's
healthy steps cost. :class:`DigestDetector` judges step after step of an instance, and writes
incidents for those that depart. A finding on digests names rank and kind; the kernels, the walk
back and the exact cost come from the full trees that it makes the processor ask for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from kat_otel import semconv
from kat_otel.errors import DecodeError
from kat_otel.spans import SpanKind, SpanTable
from kat_otel.ttad.digest_batch import DigestBatch, read_batches
from kat_otel.ttad.digest_history import DigestHistory, Flags, Measured
from kat_otel.ttad.digest_incidents import Judged, incidents_of
from kat_otel.ttad.digest_report import DigestReports, Findings
from kat_otel.ttad.digest_steps import (
    DigestKind,
    DigestSteps,
    Group,
    Groups,
    groups_of,
    read_steps,
    without_broken,
)
from kat_otel.ttad.settings import Settings
from kat_otel.ttad.tracker import Tracker
from kat_otel.verdict import Report

__all__ = ["DigestDetector", "is_digest_step", "judge_many"]

_MAX_KINDS = 64
_MAX_NAMES = 8_192

_Batches = list[tuple[Sequence[Group], DigestBatch]]


def judge_many(batch: DigestBatch, history: DigestHistory) -> tuple[Measured, Flags]:
    """Judges many steps of one kind and remembers the healthy ones.

    Steps of a batch are compared with the history before it. Of no more than ``history.room``
    steps the result is that of one step after the other: :class:`DigestDetector` cuts there.
    """
    measured = history.measure(batch)
    return measured, history.judge(batch, measured)


def is_digest_step(table: SpanTable) -> bool:
    """Returns whether the step has digests and no GPU work: then this module judges it."""
    if table.on_gpu.any():
        return False
    steps = np.flatnonzero(table.kind == SpanKind.WORKER_STEP.value).tolist()
    return any(
        isinstance(table.attributes.get(row, {}).get(semconv.DIGEST), bytes) for row in steps
    )


class DigestDetector:
    """Judges the digest steps of one instance in order.

    Args:
        settings: thresholds.
        tracker: the life of the incidents; share the full detector's, so that a cause that both
            see is one incident.
    """

    def __init__(self, settings: Settings | None = None, tracker: Tracker | None = None) -> None:
        self._settings = settings or Settings()
        self._tracker = Tracker(self._settings) if tracker is None else tracker
        self._kinds: OrderedDict[DigestKind, DigestHistory] = OrderedDict()
        self._names: OrderedDict[int, str] = OrderedDict()
        self._last_names = 0  # ranks say the same: it is read once

    def reload(self, settings: Settings) -> None:
        """Takes new thresholds between two steps; histories keep the size they were made with."""
        self._settings = settings
        for history in self._kinds.values():
            history.reload(settings)

    def judge(self, table: SpanTable) -> Report:
        """Judges one step; see :meth:`judge_steps`.

        Args:
            table: its worker steps, each with a digest (attribute ``kat.digest``, bytes).
        """
        (report,) = self.judge_steps(table, (0, len(table)))
        return report

    def judge_steps(self, table: SpanTable, bounds: Sequence[int]) -> list[Report]:
        """Judges consecutive steps together; what is said of each is as if they came one by one.

        Args:
            table: their worker steps, step by step.
            bounds: the first row of each step, and behind the last the number of rows.

        Returns:
            A report a step, whose incidents are those that the step touched or resolved.
        """
        groups, batches = self._batches(read_steps(table, bounds))
        self._learn_names(groups.digests.names)
        found = Findings.of(groups)
        for kind, some in batches.items():
            for members, batch in some:
                self._judge_kind(kind, members, batch, found)
        reports = DigestReports(groups, self._settings)
        name = table.resources[0].instance if table.resources else ""
        said: list[Report] = []
        for step, (begun, length) in enumerate(
            zip(reports.begin_ns, found.length.tolist(), strict=True)
        ):
            incidents = found.incidents[step]
            incidents.sort(key=lambda i: -i.impact_ns)
            most = incidents[: self._settings.max_incidents]
            touched = self._tracker.step(most, length, name, begun)
            said.append(reports.of(step, touched, found.learning.get(step, ())))
        return said

    def _batches(self, read: DigestSteps) -> tuple[Groups, dict[DigestKind, _Batches]]:
        """Returns the digests by kind, and as arrays; those that cannot be read are left out."""
        least = self._settings.min_aligned
        groups = groups_of(read)
        try:
            return groups, _by_kind(groups, least)
        except DecodeError:  # one contradicts itself: the others are judged without it
            groups = groups_of(without_broken(groups.digests))
            return groups, _by_kind(groups, least)

    def _judge_kind(
        self, kind: DigestKind, members: Sequence[Group], batch: DigestBatch, found: Findings
    ) -> None:
        """Judges the groups of one kind, in pieces within which what is usual does not change."""
        history = self._history(kind, batch)
        batch = _like(batch, history)
        measured = history.by_peers(batch)
        at = 0
        while at < len(members):
            first, at = at, min(at + history.room, len(members))
            piece = batch.steps(first, at)
            mine = history.with_usual(piece, measured.steps(first, at))
            self._judge(kind, members[first:at], piece, mine, found)

    def _judge(
        self,
        kind: DigestKind,
        members: Sequence[Group],
        batch: DigestBatch,
        measured: Measured,
        found: Findings,
    ) -> None:
        history, read = self._kinds[kind], found.groups.digests
        flags = history.flags(batch, measured)
        departs = flags.any
        for at in np.flatnonzero(departs).tolist():
            first, count = members[at].first, len(kind.ranks)
            judged = Judged(
                read.table,
                read.row[first : first + count],
                kind.ranks,
                batch.steps(at, at + 1),
                measured.steps(at, at + 1),
                flags.step(at),
                history,
                self._names,
            )
            found.incidents[members[at].step] += incidents_of(judged)
        known, learning = history.steps + np.cumsum(~departs), not history.ready
        history.remember(batch, measured, ~departs)
        steps = [group.step for group in members]
        found.length[steps] = np.maximum(found.length[steps], measured.length)
        if learning:
            # With the last of them there may be enough to tell what is usual.
            for at in range(len(members) - history.ready):
                found.learning[steps[at]].append(int(known[at]))

    def _history(self, key: DigestKind, batch: DigestBatch) -> DigestHistory:
        history = self._kinds.get(key)
        if history is None:
            history = self._kinds[key] = DigestHistory(self._settings, batch.steps(0, 1))
            while len(self._kinds) > _MAX_KINDS:
                self._kinds.popitem(last=False)
        self._kinds.move_to_end(key)
        return history

    def _learn_names(self, said: Sequence[str]) -> None:
        for text in said:
            if hash(text) == self._last_names:
                continue
            self._last_names = hash(text)
            for line in text.splitlines():
                number, _, name = line.partition(" ")
                if len(number) == 8 and name and set(number) <= _HEX:
                    self._names[int(number, 16)] = name
        while len(self._names) > _MAX_NAMES:
            self._names.popitem(last=False)


_HEX = frozenset("0123456789abcdef")


def _by_kind(groups: Groups, least: float) -> dict[DigestKind, _Batches]:
    """Returns the digests of each kind as arrays, ranks side by side, in the order of steps.

    Steps of which too few ranks sent a digest are left out.
    """
    read = groups.digests
    missing = read.missing(least)
    found: dict[DigestKind, _Batches] = {}
    for kind, members in groups.of_kind.items():
        count = len(kind.ranks)
        if len(groups.of_kind) == 1 and not missing.any():
            digests, headers = read.digests, read.headers  # all of them, in order
        else:
            members = [group for group in members if not missing[group.step]]  # noqa: PLW2901
            if not members:
                continue
            digests = [one for g in members for one in read.digests[g.first : g.first + count]]
            first = np.array([group.first for group in members], np.int64)
            headers = read.headers[(first[:, None] + np.arange(count)).reshape(-1)]
        found[kind], at = [], 0
        for batch in read_batches(digests, (len(members), count), headers):
            found[kind].append((members[at : at + len(batch)], batch))
            at += len(batch)
    return found


def _like(batch: DigestBatch, history: DigestHistory) -> DigestBatch:
    """Returns the batch with the kernel classes of its history, in their order."""
    return (
        batch
        if np.array_equal(batch.classes, history.classes)
        else batch.with_classes(history.classes)
    )
