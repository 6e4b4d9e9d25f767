"""Spans of a table made ready for :mod:`kat_otel.otlp.pack`: what recurs is packed once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel import fields, semconv
from kat_otel.fields import REST
from kat_otel.otlp import pack
from kat_otel.otlp.memory import address_of
from kat_otel.otlp.wire import attribute
from kat_otel.spans import COLUMNS, AttributeValue, SpanKind, SpanTable
from kat_otel.wire import delimited, span_head, text_attribute

__all__ = ["PackedSpans"]

_PADDING = bytes(pack.SLACK)


def _templates() -> list[tuple[str, NDArray[np.uint8], int]]:
    made: list[tuple[str, NDArray[np.uint8], int]] = []
    for key, (column, _) in fields.SPAN_INTS.items():
        raw = key.encode()
        body = delimited(b"\x0a", raw) + b"\x12\x00\x18"
        # The length of the whole: without the digits, which are added as they are known.
        template = b"\x4a" + bytes([len(body)]) + body
        made.append((column, np.frombuffer(template + _PADDING, np.uint8), len(raw)))
    return made


_TEMPLATES: Final = _templates()


class PackedSpans:
    """The given rows of a table, ready to be written.

    Args:
        table: spans; ids must be set.
        rows: row numbers, int64, in the order in which they are written.
    """

    def __init__(self, table: SpanTable, rows: NDArray[np.int64]) -> None:
        self._count = len(rows)
        self._kept: list[NDArray[Any]] = []  # what the addresses point to
        self._arguments = np.zeros(pack.SIZE, np.int64)
        self._set(pack.ROWS, np.ascontiguousarray(rows, np.int64))
        columns = ("trace_hi", "trace_lo", "span_id", "parent_id", "start_ns", "duration_ns")
        for place, name in enumerate(columns, pack.TRACE_HI):
            self._set(place, np.ascontiguousarray(getattr(table, name)))
        for number, (name, template, key_size) in enumerate(_TEMPLATES):
            place = pack.INTS + pack.INT_SIZE * number
            self._set(place, np.ascontiguousarray(getattr(table, name)))
            self._arguments[place + 1] = COLUMNS[name].dtype.itemsize
            self._set(place + 2, template)
            self._arguments[place + 3] = key_size
        self._set_heads(table, rows)
        for number, (key, name) in enumerate(fields.SPAN_TEXTS.items(), 1):
            self._set_texts(number, key, table, getattr(table, name)[rows])
        self._set_extras(table, rows)
        self._sizes = np.empty(self._count, np.int64)
        pack.measure(address_of(self._arguments), self._count, address_of(self._sizes))
        self._ends = np.cumsum(self._sizes + _varint_sizes(self._sizes) + 1)

    def fitting(self, first: int, room: int) -> int:
        """Returns the end of the spans from ``first`` on that fit into ``room`` bytes."""
        before = int(self._ends[first - 1]) if first else 0
        return max(first, int(np.searchsorted(self._ends, before + room, side="right")))

    def packed(self, first: int, last: int) -> memoryview:
        """Returns spans ``first`` to ``last`` (excluded) as fields of ScopeSpans."""
        before = int(self._ends[first - 1]) if first else 0
        size = int(self._ends[last - 1]) - before
        out = np.empty(size + pack.SLACK, np.uint8)
        at = address_of(out)
        end = pack.write(address_of(self._arguments), first, last, address_of(self._sizes), at)
        assert end - at == size  # noqa: S101 - else the measure and the writer disagree
        return out[:size].data

    def _set(self, place: int, array: NDArray[Any]) -> None:
        self._kept.append(array)
        self._arguments[place] = address_of(array)

    def _set_stretches(
        self, number: int, which: NDArray[np.int32], stretches: Iterable[bytes]
    ) -> None:
        packed = [*stretches]
        place = pack.STRETCHES + pack.STRETCH_SIZE * number
        self._set(place, which)
        self._set(place + 1, np.frombuffer(b"".join([*packed, _PADDING]), np.uint8))
        self._set(place + 2, np.cumsum([0, *map(len, packed)], dtype=np.int64))

    def _set_heads(self, table: SpanTable, rows: NDArray[np.int64]) -> None:
        """Name, OTel kind and our kind, packed once per distinct triple."""
        names, which = _distinct(table.name[rows], len(table.strings))
        says_kind = _must_say_kind(table)[rows]
        triples = which * 64 + table.kind[rows].astype(np.int32) * 2 + says_kind
        found, which = _distinct(triples, 64 * len(names))
        heads: list[bytes] = []
        for triple in found.tolist():
            text = table.strings[int(names[triple // 64])]
            heads.append(span_head(text, triple % 64 // 2, says_kind=bool(triple & 1)))
        self._set_stretches(0, which, heads)

    def _set_texts(
        self, number: int, key: str, table: SpanTable, values: NDArray[np.int32]
    ) -> None:
        if not np.any(values):
            return
        found, which = _distinct(values, len(table.strings))
        texts = (table.strings[index] for index in found.tolist())
        self._set_stretches(
            number, which, (text_attribute(key, text) if text else b"" for text in texts)
        )

    def _set_extras(self, table: SpanTable, rows: NDArray[np.int64]) -> None:
        if not table.attributes:
            return
        place_of = np.full(len(table), -1, np.int32)
        said = np.fromiter(table.attributes, np.int64, len(table.attributes))
        place_of[said] = np.arange(len(said), dtype=np.int32)
        chosen = place_of[rows]
        has = np.flatnonzero(chosen >= 0)
        if len(has):
            which = np.full(len(rows), -1, np.int32)
            which[has] = np.arange(len(has), dtype=np.int32)
            packed = (_pack_extra(table.attributes[row]) for row in rows[has].tolist())
            self._set_stretches(4, which, packed)


def _distinct(values: NDArray[np.int32], bound: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Returns the distinct values, and for every value its place among them, int32."""
    if bound > 65_536 + 8 * len(values):
        found, place = np.unique(values, return_inverse=True)
        return found.astype(np.int64), place.astype(np.int32)
    marks = np.zeros(bound, np.bool_)  # no sort: there are few texts to a span
    marks[values] = True
    found = np.flatnonzero(marks)
    place = np.empty(bound, np.int32)
    place[found] = np.arange(len(found), dtype=np.int32)
    return found, place[values]


def _varint_sizes(values: NDArray[np.int64]) -> NDArray[np.int64]:
    sizes = np.ones(len(values), np.int64)
    for shift in (7, 14, 21, 28):
        sizes += values >> shift != 0
    return sizes


def _must_say_kind(table: SpanTable) -> NDArray[np.bool_]:
    """Returns where the reader could not tell the kind; foreign spans stay as they came."""
    must = (table.kind != SpanKind.OTHER) | (table.stream >= 0) | (table.correlation >= 0)
    for row, values in table.attributes.items():
        must[row] |= semconv.KERNEL_NAME in values
    return must


def _pack_extra(values: Any) -> bytes:
    extra: dict[str, AttributeValue] = dict(values)
    rest = extra.pop(REST, b"")
    packed = b"".join(
        delimited(b"\x4a", attribute(key, value).SerializeToString())
        for key, value in extra.items()
    )
    return packed + (rest if isinstance(rest, bytes) else b"")
