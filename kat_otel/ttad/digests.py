"""Judges digests: which rank makes the others wait, from at most 4 KB a rank and step.

:func:`judge_many` judges many steps of one kind at once and gives flags; it is what a fleet's
healthy steps cost. :class:`DigestDetector` judges step after step of an instance, and writes
incidents for those that depart. A finding on digests names rank and kind; the kernels, the walk
back and the exact cost come from the full trees that it makes the processor ask for.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kat_otel import semconv
from kat_otel.digest import read_headers
from kat_otel.spans import UNKNOWN, SpanKind, SpanTable
from kat_otel.ttad.digest_batch import DigestBatch, read_batch
from kat_otel.ttad.digest_history import DigestHistory, Flags, Measured
from kat_otel.ttad.digest_incidents import Judged, incidents_of
from kat_otel.ttad.settings import Settings
from kat_otel.ttad.summary import instance_of, source_of
from kat_otel.ttad.tracker import Tracker
from kat_otel.verdict import Abstention, Clock, Coverage, Incident, Report, Step

__all__ = ["DigestDetector", "is_digest_step", "judge_many"]

_MAX_KINDS = 64
_MAX_NAMES = 8_192


def judge_many(batch: DigestBatch, history: DigestHistory) -> tuple[Measured, Flags]:
    """Judges many steps of one kind and remembers the healthy ones.

    Steps of a batch are compared with the history before it, so that a batch of more steps than
    are remembered is cut into pieces by whoever makes it (:class:`DigestDetector` takes one).
    """
    measured = history.measure(batch)
    return measured, history.judge(batch, measured)


def is_digest_step(table: SpanTable) -> bool:
    """Returns whether the step has digests and no GPU work: then this module judges it."""
    if table.on_gpu.any():
        return False
    steps = np.flatnonzero(table.kind == SpanKind.WORKER_STEP.value).tolist()
    return any(isinstance(_said(table, row), bytes) for row in steps)


def _carried(table: SpanTable) -> list[tuple[int, int, bytes]]:
    """Returns rank, row and digest of the worker steps that carry one, by rank and row."""
    steps = np.flatnonzero(table.kind == SpanKind.WORKER_STEP.value)
    rows = zip(table.rank[steps].tolist(), steps.tolist(), strict=True)
    said = ((rank, row, _said(table, row)) for rank, row in rows)
    return sorted((rank, row, data) for rank, row, data in said if isinstance(data, bytes))


def _said(table: SpanTable, row: int) -> object:
    return table.attributes.get(row, {}).get(semconv.DIGEST)


class _Kind(NamedTuple):
    """What digests have in common that are compared with each other, and with earlier ones."""

    stage: int
    order: int
    records: int
    merged: int
    work: int  # the bucket of their thread blocks
    ranks: tuple[int, ...]


@dataclass(slots=True)
class _Group:
    """Digests that can be compared: their rows of the table, their bytes and headers, by rank."""

    rows: NDArray[np.int64]
    digests: list[bytes]
    headers: NDArray[Any]


@dataclass(slots=True)
class _Read:
    """The digests of a step by what can be compared, and what could not be read."""

    groups: dict[_Kind, _Group]
    ranks: list[int]
    kernels: int
    dropped: int
    merged: int
    notes: list[str]


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
        self._kinds: OrderedDict[_Kind, DigestHistory] = OrderedDict()
        self._names: OrderedDict[int, str] = OrderedDict()
        self._last_names = 0  # ranks say the same: it is read once

    def reload(self, settings: Settings) -> None:
        """Takes new thresholds between two steps; histories keep the size they were made with."""
        self._settings = settings
        for history in self._kinds.values():
            history.reload(settings)

    def judge(self, table: SpanTable) -> Report:
        """Judges one step.

        Args:
            table: its worker steps, each with a digest (attribute ``kat.digest``, bytes).

        Returns:
            A report whose incidents are those that this step touched or resolved.
        """
        self._learn_names(table)
        read = self._read(table)
        reason = self._abstention(table, read)
        incidents: list[Incident] = []
        length, judged_kernels = 0.0, 0
        for key, group in read.groups.items() if reason is None else ():
            batch = read_batch(group.digests, (1, len(group.rows)), group.headers)
            history = self._history(key, batch)
            measured, flags = judge_many(_like(batch, history), history)
            length = max(length, float(measured.length[0]))
            judged_kernels += int(batch.header["kernels"].sum())
            if not history.ready:
                read.notes.append(
                    f"{history.steps} of {self._settings.min_history} steps that tell what is "
                    "usual: until then only what stands out for that long is found"
                )
            if flags.any[0]:
                judged = Judged(table, group.rows, batch, measured, flags, history, self._names)
                incidents += incidents_of(judged)
        incidents.sort(key=lambda i: -i.impact_ns)
        touched = self._tracker.update(incidents[: self._settings.max_incidents], length, table)
        clock = Clock(state="unaligned", max_offset_ns=0)  # only durations were compared
        return Report(
            instance=instance_of(table),
            source=source_of(table, clock),
            coverage=Coverage(
                spans=len(table),
                kernels=read.kernels,
                aligned=judged_kernels,
                unmatched=read.kernels - judged_kernels,
                notes=read.notes,
            ),
            steps=[_step(table, read.ranks)],
            incidents=touched,
            abstained=reason,
        )

    def _history(self, key: _Kind, batch: DigestBatch) -> DigestHistory:
        history = self._kinds.get(key)
        if history is None:
            history = self._kinds[key] = DigestHistory(self._settings, batch)
            while len(self._kinds) > _MAX_KINDS:
                self._kinds.popitem(last=False)
        self._kinds.move_to_end(key)
        return history

    def _read(self, table: SpanTable) -> _Read:
        carried = _carried(table)
        headers, wrong = read_headers([data for _, _, data in carried])
        broken = [f"rank {carried[at][0]}: {error}" for at, error in sorted(wrong.items())]
        first: dict[int, int] = {}  # of a worker step that came twice
        for at, (rank, _, _) in enumerate(carried):
            if at not in wrong:
                first.setdefault(rank, at)
        good = list(first.values())
        headers, carried = headers[good], [carried[at] for at in good]
        read = _Read(
            groups={},
            ranks=list(first),
            kernels=int(headers["kernels"].sum(dtype=np.int64)),
            dropped=int(headers["dropped"].sum(dtype=np.int64)),
            merged=int(headers["merged"].max(initial=0)),
            notes=[],
        )
        stage = np.array([resource.pp for resource in table.resources] or [UNKNOWN], np.int64)
        rows = np.array([row for _, row, _ in carried], np.int64)
        kinds = np.stack(
            [stage[table.resource[rows]], *(headers[n] for n in ("order", "records", "merged"))],
            axis=1,
        )
        for kind in _distinct(kinds):
            mine = np.flatnonzero((kinds == kind).all(axis=1))
            blocks = float(headers["blocks"][mine].mean())
            bucket = round(4 * math.log2(blocks)) if blocks > 0 else 0
            ranks = tuple(carried[at][0] for at in mine.tolist())
            digests = [carried[at][2] for at in mine.tolist()]
            pp, order, records, merged = kind
            read.groups[_Kind(pp, order, records, merged, bucket, ranks)] = _Group(
                rows[mine], digests, headers[mine]
            )
        read.notes = self._notes(read, broken)
        return read

    def _notes(self, read: _Read, broken: list[str]) -> list[str]:
        notes = ["judged by digests: no single kernels, no walk back, clocks were not compared"]
        notes += [f"a digest could not be read, {text}" for text in broken[:4]]
        if read.dropped:
            notes.append(f"the workers dropped {read.dropped:,} spans: their digests lack them")
        if read.merged > 1:
            notes.append(
                f"too many collectives for a digest: {read.merged} at a time were judged as one"
            )
        if len(read.groups) > 1:
            notes.append(
                f"the ranks ran {len(read.groups)} different sequences of collectives; they were "
                "compared within each only"
            )
        alone = sorted(kind.ranks[0] for kind in read.groups if len(kind.ranks) == 1)
        if alone:
            notes.append(f"{len(alone)} rank(s) have no peer to be compared with: {alone[:8]}")
        return notes

    def _abstention(self, table: SpanTable, read: _Read) -> Abstention | None:
        wanted = max((r.world_size for r in table.resources), default=0)
        for attributes in table.attributes.values():
            said = attributes.get(semconv.GROUP_SIZE)
            wanted = max(wanted, said if isinstance(said, int) else 0)
        there = len(read.ranks)
        if 0 < there < wanted:
            read.notes.append(
                f"{wanted - there} of {wanted} ranks sent no digest: a culprit among them cannot "
                "be named"
            )
        if there and there >= self._settings.min_aligned * wanted:
            return None
        return Abstention(
            reason="digests_missing",
            detail=f"{there} of {wanted} ranks sent a digest that can be read (at least "
            f"{100 * self._settings.min_aligned:.0f} % are needed)",
        )

    def _learn_names(self, table: SpanTable) -> None:
        for said in table.attributes.values():
            text = said.get(semconv.DIGEST_NAMES)
            if not isinstance(text, str) or hash(text) == self._last_names:
                continue
            self._last_names = hash(text)
            for line in text.splitlines():
                number, _, name = line.partition(" ")
                if len(number) == 8 and name and set(number) <= _HEX:
                    self._names[int(number, 16)] = name
        while len(self._names) > _MAX_NAMES:
            self._names.popitem(last=False)


_HEX = frozenset("0123456789abcdef")


def _distinct(kinds: NDArray[np.int64]) -> list[list[int]]:
    """Returns the distinct rows."""
    if (kinds == kinds[:1]).all():
        rows: list[list[int]] = kinds[:1].tolist()
    else:
        rows = np.unique(kinds, axis=0).tolist()
    return rows


def _like(batch: DigestBatch, history: DigestHistory) -> DigestBatch:
    """Returns the batch with the kernel classes of its history, in their order."""
    return (
        batch
        if np.array_equal(batch.classes, history.classes)
        else batch.with_classes(history.classes)
    )


def _step(table: SpanTable, ranks: list[int]) -> Step:
    begin = int(table.start_ns.min()) if len(table) else 0
    return Step(
        step=int(table.step[0]) if len(table) else -1,
        start_unix_nano=begin,
        duration_ns=int(table.end_ns.max()) - begin if len(table) else 0,
        ranks=ranks,
    )
