"""Columns to OTLP bytes with NumPy alone: what recurs is packed once, rows of one form together.

A span is a head of fixed width (ids, times), numbers in varints of fixed width, and a tail that
many spans share: name, kind, grid, block, group, stream. Protobuf allows a varint to be longer
than it must be, and fields in any order. So spans with tails of one length are one 2-D array of
bytes: the heads and numbers are columns of it, the tails are gathered. Tails are kept from step
to step. Rows with attributes (the worker step) are packed one by one.

Where the native library was built, :mod:`.native_pack` packs the rows that are many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel import semconv
from kat_otel.fields import REST
from kat_otel.identity import SpanIds
from kat_otel.instrumentation.sending.tails import (
    KEY_OF,
    NUMBERS,
    SHARED,
    Layout,
    Layouts,
    number_attribute,
)
from kat_otel.spans import AttributeValue, Resource, SpanKind, SpanTable
from kat_otel.wire import delimited, resource_attributes, value_attribute, varint

__all__ = ["MAX_REQUEST_BYTES", "Buffer", "Packer", "request", "step_attribute"]

Buffer = bytes | memoryview

MAX_REQUEST_BYTES: Final = 3_670_016
"""3.5 MiB: gRPC servers, which collectors are behind, refuse messages above 4 MiB."""

_MAX_SIZE: Final = (1 << 21) - 1  # of a span whose length stands in three bytes

# Tag and length of the span, trace id, span id, parent id, start, end: offsets of the values.
_LENGTH, _SPAN, _PARENT, _START, _END = 1, 24, 34, 43, 52
_HEAD: Final = 60
_LONG_TEXT: Final = 64
_TAG_AND_LENGTH: Final = 4


def request(resource: Resource, spans: Sequence[Buffer]) -> tuple[Buffer, ...]:
    """Returns an ExportTraceServiceRequest in pieces: large ones are sent from where they lie.

    Args:
        resource: whose spans they are.
        spans: whole spans, as :class:`Packer` makes them, any number in each.
    """
    scope = delimited(b"\x0a", delimited(b"\x0a", semconv.SCOPE_NAME.encode()))
    schema = delimited(b"\x1a", semconv.SCHEMA_URL.encode())
    head = delimited(b"\x0a", resource_attributes(resource)) + schema
    inner = len(scope) + len(schema) + sum(map(len, spans))
    scope_tag = b"\x12" + varint(inner)
    whole = len(head) + len(scope_tag) + inner
    return (b"".join((b"\x0a" + varint(whole), head, scope_tag, scope, schema)), *spans)


class Packer:
    """Packs steps, and keeps the tails of their spans for the next. Used by one thread."""

    def __init__(self) -> None:
        self._layouts = Layouts()

    def pack(self, table: SpanTable, *, limit: int = MAX_REQUEST_BYTES) -> Iterator[list[Buffer]]:
        """Yields the spans of a step as fields of ScopeSpans, in lots of at most ``limit`` bytes.

        Args:
            table: spans of one rank and step; ids must be set. Of the resource nothing is said.
            limit: bytes of a lot; a span above it is a lot of its own.

        Returns:
            Rows with attributes come first, then the others, in any order.

        Raises:
            ValueError: the spans are of several traces.
        """
        if len(table) == 0:
            return
        if bool((table.trace_lo != table.trace_lo[0]).any()) or bool(
            (table.trace_hi != table.trace_hi[0]).any()
        ):
            raise ValueError("spans of several traces: a packer takes one step at a time")
        alone = np.zeros(len(table), np.bool_)
        alone[np.fromiter(table.attributes, np.int64, len(table.attributes))] = True
        # A time before 1970 or a span without a parent has no fixed place: both are rare.
        alone |= (table.parent_id == 0) | (table.start_ns < 0) | (table.step != table.step[-1])
        rows = np.flatnonzero(~alone)
        pieces: Sequence[Buffer] | None = self._many(table, rows, limit) if len(rows) else ()
        if pieces is None:
            alone[:] = True
        singles = [self.one(table, row) for row in np.flatnonzero(alone).tolist()]
        yield from _lots([*singles, *(pieces or ())], limit)

    def one(
        self,
        table: SpanTable,
        row: int,
        ids: SpanIds | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> bytes:
        """Returns one span as a field of ScopeSpans, with its attributes.

        Args:
            table: where it stands.
            row: which.
            ids: of the span; None: those of the table.
            attributes: the same.
        """
        said = table.attributes.get(row, {}) if attributes is None else attributes
        trace_hi, trace_lo, span, parent = ids or (
            int(getattr(table, name)[row])
            for name in ("trace_hi", "trace_lo", "span_id", "parent_id")
        )
        start = int(table.start_ns[row])
        values = {name: int(getattr(table, name)[row]) for name in (*SHARED, *NUMBERS)}
        parts: list[bytes] = [
            delimited(b"\x0a", _id(trace_hi) + _id(trace_lo)),
            delimited(b"\x12", _id(span)),
            delimited(b"\x22", _id(parent)) if parent else b"",
            b"\x39" + _time(start),
            b"\x41" + _time(start + int(table.duration_ns[row])),
        ]
        for name in (*NUMBERS, "step"):
            value = values[name] if name != "step" else int(table.step[row])
            if value >= 0:
                parts.append(value_attribute(b"\x4a", KEY_OF[name], value))
        numbers = any(values[name] >= 0 for name in ("stream", "correlation"))
        says_kind = numbers or values["kind"] != SpanKind.OTHER or semconv.KERNEL_NAME in said
        shared = tuple(values[name] for name in SHARED)
        parts.append(self._layouts.tail(table, shared, says_kind=says_kind))
        parts += (_attribute(key, value) for key, value in said.items() if key != REST)
        rest = said.get(REST)
        if isinstance(rest, bytes):
            parts.append(rest)
        return delimited(b"\x12", b"".join(parts))

    def _many(
        self, table: SpanTable, rows: NDArray[np.int64], limit: int
    ) -> Sequence[Buffer] | None:
        """Returns the packed rows; None if a name among them is absurdly long."""
        numbers = np.zeros(len(rows), np.uint8)
        columns = {name: getattr(table, name)[rows] for name in NUMBERS}
        for bit, column in enumerate(columns.values()):
            numbers |= (column >= 0).view(np.uint8) << np.uint8(bit)
        widths = [_width(column) for column in columns.values()]
        shared = [*(getattr(table, name)[rows] for name in SHARED), numbers]
        step = step_attribute(table)
        layout = self._layouts.of(table, shared, [*widths, len(step)], _HEAD)
        if int(layout.size.max()) > _MAX_SIZE:
            return None
        rows = rows[layout.order]
        base = _heads(table, rows, layout.size - _TAG_AND_LENGTH, step)
        used = int(np.bitwise_or.reduce(numbers))
        holes = {
            bit: _number(name, columns[name][layout.order], widths[bit])
            for bit, name in enumerate(NUMBERS)
            if used >> bit & 1
        }
        return _filled(layout, base, holes, limit)


def _filled(
    layout: Layout, base: NDArray[np.uint8], holes: dict[int, NDArray[np.uint8]], limit: int
) -> list[memoryview]:
    """Returns the bytes of all rows: heads, numbers and tails side by side."""
    out = np.empty(sum((f.last - f.first) * f.size for f in layout.forms), np.uint8)
    pieces: list[memoryview] = []
    at = 0
    for form in layout.forms:
        count = form.last - form.first
        block = out[at : at + count * form.size].reshape(count, form.size)
        column = base.shape[1]
        block[:, :column] = base[form.first : form.last]
        for bit, hole in holes.items():
            if form.numbers >> bit & 1:
                block[:, column : column + hole.shape[1]] = hole[form.first : form.last]
                column += hole.shape[1]
        block[:, column:] = form.tails[layout.tail[form.first : form.last]]
        end = at + count * form.size
        if len(out) > limit:
            most = max(1, limit // form.size) * form.size
            pieces += (out[i : min(i + most, end)].data for i in range(at, end, most))
        at = end
    return pieces or [out.data]


def _heads(
    table: SpanTable, rows: NDArray[np.int64], size: NDArray[np.int64], step: bytes
) -> NDArray[np.uint8]:
    """Returns tag, length, ids, times and the step of each row, uint8 ``(rows, width)``."""
    like = b"".join(
        (
            b"\x12\x80\x80\x00",
            b"\x0a\x10" + _id(table.trace_hi[0]) + _id(table.trace_lo[0]),
            b"\x12\x08" + bytes(8),
            b"\x22\x08" + bytes(8),
            b"\x39" + bytes(8),
            b"\x41" + bytes(8),
            step,
        )
    )
    heads = np.empty((len(rows), len(like)), np.uint8)
    heads[:] = np.frombuffer(like, np.uint8)
    heads[:, _LENGTH] = size & 0x7F | 0x80
    heads[:, _LENGTH + 1] = size >> 7 & 0x7F | 0x80
    heads[:, _LENGTH + 2] = size >> 14
    start = table.start_ns[rows]
    for place, values, form in (
        (_SPAN, table.span_id[rows], ">u8"),
        (_PARENT, table.parent_id[rows], ">u8"),
        (_START, start, "<i8"),
        (_END, start + table.duration_ns[rows], "<i8"),
    ):
        heads[:, place : place + 8] = values.astype(form).view(np.uint8).reshape(-1, 8)
    return heads


def _number(name: str, values: NDArray[Any], width: int) -> NDArray[np.uint8]:
    """Returns a column as attributes whose varints have ``width`` bytes each, uint8 ``(n, ·)``."""
    like = number_attribute(name, width)
    packed = np.empty((len(values), len(like)), np.uint8)
    packed[:] = np.frombuffer(like, np.uint8)
    at = len(like) - width
    for digit in range(width):
        more = 0x80 if digit < width - 1 else 0
        packed[:, at + digit] = values >> (7 * digit) & 0x7F | more
    return packed


def _width(values: NDArray[Any]) -> int:
    """Returns how many groups of seven bits the largest value needs."""
    return max(1, -(-max(0, int(values.max())).bit_length() // 7))


def step_attribute(table: SpanTable) -> bytes:
    """Returns the number of a table's step as a field of its spans, empty if it is not known."""
    step = int(table.step[-1])
    return value_attribute(b"\x4a", semconv.STEP, step) if step >= 0 else b""


def _lots(pieces: Sequence[Buffer], limit: int) -> Iterator[list[Buffer]]:
    """Yields the pieces, as many together as the limit allows."""
    waiting: list[Buffer] = []
    size = 0
    for piece in pieces:
        if waiting and size + len(piece) > limit:
            yield waiting
            waiting, size = [], 0
        waiting.append(piece)
        size += len(piece)
    if waiting:
        yield waiting


def _attribute(key: str, value: AttributeValue) -> bytes:
    """Returns an attribute; those that steps say again and again are kept."""
    if isinstance(value, bytes) or (isinstance(value, str) and len(value) > _LONG_TEXT):
        return value_attribute(b"\x4a", key, value)
    return _recurring(key, value)


@lru_cache(maxsize=1_024, typed=True)  # True is not 1
def _recurring(key: str, value: AttributeValue) -> bytes:
    return value_attribute(b"\x4a", key, value)


def _id(value: Any) -> bytes:
    return int(value).to_bytes(8, "big")


def _time(value: int) -> bytes:
    return (value & (2**64 - 1)).to_bytes(8, "little")
