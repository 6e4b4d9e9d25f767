"""Writes a recording and its verdict as a Perfetto trace, in pieces: the order of the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import family
from kat_otel.report.perfetto import packets, records
from kat_otel.report.perfetto.lanes import lanes_of
from kat_otel.report.perfetto.marks import Mark, Marks, marks_of
from kat_otel.report.perfetto.packets import Argument, Slice, Texts
from kat_otel.report.perfetto.tracks import Tracks, tracks_of
from kat_otel.spans import SpanKind, SpanTable
from kat_otel.verdict import Report

__all__ = ["write_perfetto"]

Int64 = NDArray[np.int64]

_CHUNK: Final = 65_536
"""Begins and ends that are made at once: some 4 MB."""
_CATEGORIES: Final = tuple(kind.name.lower() for kind in SpanKind)
_NAMED: Final = np.array([SpanKind.KERNEL, SpanKind.COLLECTIVE])


def write_perfetto(report: Report, table: SpanTable, out: IO[bytes]) -> None:
    """Writes the trace; memory beside the table is some 150 bytes a span.

    Args:
        report: the verdict.
        table: the spans it was made from, with collectives classified.
        out: takes bytes; what is written is never read again.
    """
    marks = marks_of(report, table)
    rank = table.rank.astype(np.int64)
    start = np.maximum(table.start_ns - marks.shift[rank], 0)
    tracks = tracks_of(report, table, comparable=marks.comparable, incidents=len(marks.incidents))
    lane, end = lanes_of(tracks.of_row, start, np.maximum(start + table.duration_ns, start))
    uuid = tracks.uuids(lane)
    out.write(packets.beginning())
    out.write(packets.clocks(max(0, int(start.min())) if len(table) else 0))
    for one in tracks.packets():
        out.write(one)
    spans = _Spans(table, marks, start, end, uuid)
    for texts in spans.texts:
        for one in texts.packets():
            out.write(one)
    slices = [*_incident_slices(marks, tracks), *spans.slices()]
    for piece in _pieces(spans, slices):
        out.write(piece)


class _Spans:
    """Spans of the table as columns of packets."""

    def __init__(
        self, table: SpanTable, marks: Marks, start: Int64, end: Int64, uuid: Int64
    ) -> None:
        self.table, self.marks = table, marks
        self.start, self.end, self.uuid = start, end, uuid
        names, categories = Texts(b"\x12"), Texts(b"\x0a")
        arguments, values = Texts(b"\x1a"), Texts(b"\xea\x01")
        self.texts = (names, categories, arguments, values)
        numbers = [categories.number(name) for name in _CATEGORIES]
        self.category = np.array(numbers, np.int64)[np.minimum(table.kind, len(numbers) - 1)]
        self.flow = _launch_arrows(table, marks.flows, start)
        full = _numbers(table, table.name, values, -1)
        named = np.isin(table.kind, _NAMED)
        self.name = _numbers(table, table.name, names, 0)
        short = _numbers(table, np.where(named, table.name, 0), names, 0, family)
        self.name = np.where(named, short, self.name)
        self.columns = [
            records.Column(arguments.number("kernel"), np.where(named, full, -1), is_text=True),
            *(
                records.Column(arguments.number(key), getattr(table, key).astype(np.int64))
                for key in ("step", "correlation", "bytes", "sequence")
            ),
            *(
                records.Column(
                    arguments.number(key),
                    _numbers(table, getattr(table, key), values, -1),
                    is_text=True,
                )
                for key in ("grid", "block", "group")
            ),
        ]
        self.shape = records.shapes_of(self.columns, self.flow)

    def slices(self) -> Iterator[Slice]:
        """Yields the marked spans, and what happens inside waiters' collectives."""
        for row, mark in self.marks.rows.items():
            yield self._marked(row, mark)
        for row, begins, ends, name, arrow in self.marks.waits:
            yield Slice(
                start_ns=max(begins, int(self.start[row])),
                end_ns=min(max(begins, ends), int(self.end[row])),
                track=int(self.uuid[row]),
                name=name,
                categories=["kat.wait" if not arrow else "kat.transfer"],
                flows=[arrow] if arrow else [],
                child=True,
            )

    def _marked(self, row: int, mark: Mark) -> Slice:
        table = self.table
        name = table.name_of(row)
        duration = int(table.duration_ns[row])
        arguments: dict[str, Argument] = {
            "role": mark.role,
            "incident": mark.incident.id,
            "kind": mark.incident.kind,
            "component": mark.incident.component,
        }
        if mark.expected_ns is not None:
            arguments |= {
                "expected_ns": mark.expected_ns,
                "excess_ns": duration - mark.expected_ns,
            }
        if mark.waited_ns:
            arguments["waited_ns"] = mark.waited_ns
        arguments["kernel"] = name
        for key in ("step", "correlation", "bytes", "sequence"):
            if getattr(table, key)[row] >= 0:
                arguments[key] = int(getattr(table, key)[row])
        flow = int(self.flow[row])
        return Slice(
            start_ns=int(self.start[row]),
            end_ns=int(self.end[row]),
            track=int(self.uuid[row]),
            name=f"⚠ {family(name)}",  # a colour of its own: Perfetto chooses it by the name
            categories=[_CATEGORIES[int(table.kind[row])], "kat.anomalous", f"kat.{mark.role}"],
            arguments=arguments,
            flows=[*mark.flows, *([flow] if flow else [])],
        )


def _launch_arrows(table: SpanTable, taken: int, start: Int64) -> Int64:
    """Returns the arrow of each span, 0 for none: from a launch to the first work it launched.

    A graph's launch has thousands of kernels, and an arrow that goes on from one to the next
    would say something else.
    """
    flow = np.zeros(len(table), np.int64)
    work = np.flatnonzero(table.on_gpu & (table.parent >= 0))
    work = work[np.lexsort((start[work], table.parent[work]))]
    launch, first = np.unique(table.parent[work], return_index=True)
    good = table.kind[launch] == SpanKind.LAUNCH
    launch, work = launch[good], work[first[good]]
    flow[launch] = flow[work] = np.arange(1, len(launch) + 1) + taken
    return flow


def _numbers(
    table: SpanTable,
    column: NDArray[Any],
    texts: Texts,
    none: int,
    change: Callable[[str], str] = str,
) -> Int64:
    """Returns the number of every span's text in ``texts``; ``none`` for ``""``, if not 0."""
    used, place = np.unique(column, return_inverse=True)
    said = [
        none if none and not table.text(int(k)) else texts.number(change(table.text(int(k))))
        for k in used
    ]
    return np.array(said or [0], np.int64)[place.reshape(-1)]


def _incident_slices(marks: Marks, tracks: Tracks) -> Iterator[Slice]:
    for number, found in enumerate(marks.incidents):
        yield Slice(
            found.start_ns,
            max(found.end_ns, found.start_ns + 1),
            tracks.incident(number),
            found.name,
            found.categories,
            found.arguments,
            found.flows,
        )


@dataclass(frozen=True, slots=True)
class _Events:
    """Begins and ends in the order of a trace.

    Attributes:
        source: row of the table, or its length plus the place of a slice, int64 ``(2m,)``.
        is_end: bool ``(2m,)``.
    """

    source: Int64
    is_end: NDArray[np.bool_]


def _ordered(spans: _Spans, slices: list[Slice]) -> _Events:
    """Orders by time; at one moment first what ends, then what begins, the longer one first.

    A span without a duration ends after it began.
    """
    plain = np.ones(len(spans.table), bool)
    plain[np.fromiter(spans.marks.rows, np.int64)] = False
    rows = np.flatnonzero(plain)
    start = np.append(spans.start[rows], [s.start_ns for s in slices]).astype(np.int64)
    end = np.append(spans.end[rows], [s.end_ns for s in slices]).astype(np.int64)
    child = np.append(np.zeros(len(rows), bool), [s.child for s in slices]).astype(np.int8)
    source = np.append(rows, np.arange(len(slices)) + len(spans.table)).astype(np.int64)
    count = len(source)
    time = np.concatenate([start, end])
    turn = np.concatenate([np.ones(count, np.int8), np.where(end > start, 0, 2).astype(np.int8)])
    inner = np.concatenate([child, np.zeros(count, np.int8)])
    length = np.concatenate([start - end, np.zeros(count, np.int64)])
    order = np.lexsort((length, inner, turn, time))
    return _Events(np.concatenate([source, source])[order], (order >= count))


def _pieces(spans: _Spans, slices: list[Slice]) -> Iterator[bytes]:
    events = _ordered(spans, slices)
    for first in range(0, len(events.source), _CHUNK):
        chosen = slice(first, first + _CHUNK)
        yield _piece(spans, slices, events.source[chosen], events.is_end[chosen])


def _piece(spans: _Spans, slices: list[Slice], source: Int64, is_end: NDArray[np.bool_]) -> bytes:
    count = len(spans.table)
    plain = source < count
    tables: list[tuple[Int64, NDArray[np.uint8]]] = []
    begin = np.flatnonzero(plain & ~is_end)
    shape = spans.shape[source[begin]]
    for one in np.unique(shape).tolist():
        at = begin[shape == one]
        tables.append(
            (
                at,
                records.begins(
                    one,
                    source[at],
                    time=spans.start,
                    track=spans.uuid,
                    name=spans.name,
                    category=spans.category,
                    flow=spans.flow,
                    columns=spans.columns,
                ),
            )
        )
    at = np.flatnonzero(plain & is_end)
    tables.append((at, records.ends(source[at], spans.end, spans.uuid)))
    for place in np.flatnonzero(~plain).tolist():
        found = slices[int(source[place]) - count]
        raw = found.end() if is_end[place] else found.begin()
        tables.append((np.array([place]), np.frombuffer(raw, np.uint8)[None, :]))
    size = np.zeros(len(source) + 1, np.int64)
    for where, table in tables:
        size[where + 1] = table.shape[1]
    offset = np.cumsum(size)
    piece = np.empty(int(offset[-1]), np.uint8)
    for where, table in tables:
        piece[offset[where][:, None] + np.arange(table.shape[1])] = table
    return piece.tobytes()
