"""One request from bytes to table: walk, meet new texts, walk again, mend the unusual."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import DecodeError
from kat_otel.otlp import arguments as place
from kat_otel.otlp import known
from kat_otel.otlp.headers import Headers, Scopes
from kat_otel.otlp.intern import Interner
from kat_otel.otlp.layout import INT_COLUMNS, Block
from kat_otel.otlp.memory import address_of
from kat_otel.otlp.reference import refuse_header
from kat_otel.otlp.rejected import Rejected
from kat_otel.otlp.scan import GROUP, PIECE, scan
from kat_otel.otlp.slow import mend
from kat_otel.otlp.walk import walk
from kat_otel.spans import AttributeValue, SpanTable, StringTable

__all__ = ["decode"]

_NO_LIMIT: Final = 2**62
_MISSES_AT_ONCE: Final = 512
_ROUNDS: Final = 8
"""A few spans bring most texts of a request: so many rounds end at the first missing texts,
before one collects all that are left, one by span."""
_KEYS: Final = address_of(known.KEYS)
_KINDS: Final = address_of(known.KINDS)
_headers = Headers()


def decode(
    data: bytes,
    rejected: Rejected | None,
    strings: StringTable,
    max_attribute_bytes: int | None,
    raw: NDArray[np.uint8] | None = None,
) -> SpanTable:
    """Decodes a request; see :func:`~kat_otel.otlp.decode.decode_traces`.

    Args:
        raw: the same bytes where the walker shall read them: a fuzzer puts them before a guard.
    """
    raw = np.frombuffer(data, np.uint8) if raw is None else raw
    found = _scan(raw)
    resources, problems = _headers.resources(data, found, max_attribute_bytes)
    refused = _refused(found, problems, rejected) if problems else None
    most = _NO_LIMIT if max_attribute_bytes is None else max_attribute_bytes
    walked = _walk(data, raw, found, Interner.of(strings), most)
    attributes = _attributes(data, address_of(raw), walked.extras)
    columns = walked.block.columns
    table = SpanTable(strings, resources, attributes=attributes, **columns)
    if len(walked.slow):
        table = mend(data, found, walked.slow, table, rejected, max_attribute_bytes, refused)
    elif refused is not None:
        table = table.take(~refused)
    return table


def _refused(
    found: Scopes, problems: dict[int, str], rejected: Rejected | None
) -> NDArray[np.bool_]:
    """Counts the spans of the scopes with a problem, and returns which they are."""
    refused = np.zeros(len(found.spans), np.bool_)
    for scope, problem in problems.items():
        if scope < len(found.scopes) - 1:
            begin, end = int(found.scopes[scope, 0]), int(found.scopes[scope + 1, 0])
            refuse_header(int(found.scopes[scope, 1]), problem, end - begin, rejected)
            refused[begin:end] = True
    return refused


def _scan(raw: NDArray[np.uint8]) -> Scopes:
    base = address_of(raw)
    counts = np.zeros(4, np.int64)
    # A kernel span has 160 to 400 bytes; shorter ones cost a second scan, a tenth of the walk.
    span_room, scope_room, piece_room = 64 + len(raw) // 160, 64, 256
    while True:
        spans = np.empty(2 * span_room, np.int64)
        scopes = np.empty(2 * (scope_room + 1), np.int64)
        pieces = np.empty(PIECE * piece_room, np.int64)
        outcome = scan(
            base,
            base + len(raw),
            address_of(spans),
            span_room,
            address_of(scopes),
            scope_room,
            address_of(pieces),
            piece_room,
            address_of(counts),
        )
        if outcome:
            what = "a group" if outcome == GROUP else "cut off or of no known form"
            raise DecodeError(
                f"request of {len(raw):,} bytes: not an OTLP trace message "
                f"({what} at byte {int(counts[0]) - base:,})"
            )
        span_count, scope_count, resource_count, piece_count = counts.tolist()
        if span_count <= span_room and scope_count <= scope_room and piece_count <= piece_room:
            return Scopes(
                base=base,
                spans=spans[: 2 * span_count].reshape(-1, 2),
                scopes=scopes[: 2 * (scope_count + 1)].reshape(-1, 2),
                pieces=pieces[: PIECE * piece_count].reshape(-1, PIECE),
                resource_count=resource_count,
            )
        span_room, scope_room, piece_room = span_count, scope_count, piece_count


@dataclass(slots=True)
class _Walked:
    block: Block
    extras: NDArray[np.int64]
    slow: NDArray[np.int64]


def _walk(
    data: bytes, raw: NDArray[np.uint8], found: Scopes, interner: Interner, most: int
) -> _Walked:
    count = len(found.spans)
    block = Block(count)
    slow = np.empty(count, np.int64)
    results = np.zeros(3, np.int64)
    given = _arguments(raw, found, block, most)
    given[place.SLOW] = address_of(slow)
    given[place.RESULTS] = address_of(results)
    miss_room, extra_room, rounds = _MISSES_AT_ONCE, 256, 0
    while True:
        misses = np.empty((miss_room, place.MISS_SIZE), np.int64)
        extras = np.empty((extra_room, place.EXTRA_SIZE), np.int64)
        tables = interner.tables
        given[place.SLOTS : place.TEXT_KIND + 1] = tables.places
        given[place.MISSES], given[place.MISS_ROOM] = address_of(misses), miss_room
        given[place.EXTRAS], given[place.EXTRA_ROOM] = address_of(extras), extra_room
        walk(address_of(given))
        missed, extra_count, slow_count = results.tolist()
        mode = int(given[place.MODE])
        if (missed == 0 or mode == place.MODE_LAST) and extra_count <= extra_room:
            return _Walked(block, extras[:extra_count], slow[:slow_count])
        if missed > miss_room and mode == place.MODE_ALL:
            miss_room = missed
        elif missed and mode != place.MODE_LAST:
            _enter(data, misses[: min(missed, miss_room)], found.base, interner)
            rounds += 1
            if missed < miss_room or mode == place.MODE_ALL:
                given[place.MODE] = place.MODE_LAST
            elif rounds == _ROUNDS:
                given[place.MODE] = place.MODE_ALL
        extra_room = max(extra_room, extra_count)


def _arguments(raw: NDArray[np.uint8], found: Scopes, block: Block, most: int) -> NDArray[np.int64]:
    given = np.zeros(place.SIZE, np.int64)
    given[place.LIMIT] = found.base + len(raw)
    given[place.BASE] = found.base
    given[place.SPANS] = address_of(found.spans)
    given[place.SCOPES] = address_of(found.scopes)
    given[place.SCOPE_COUNT] = len(found.scopes) - 1
    given[place.KNOWN] = _KEYS
    given[place.KINDS] = _KINDS
    given[place.MAX_TEXT] = most
    at = block.addresses()
    given[place.INTS : place.INTS + len(INT_COLUMNS)] = at[: len(INT_COLUMNS)]
    given[place.TRACE_HI :] = at[len(INT_COLUMNS) :]
    return given


def _enter(data: bytes, misses: NDArray[np.int64], base: int, interner: Interner) -> None:  # pyright: ignore[reportArgumentType]
    names: set[bytes] = set()
    kernels: set[bytes] = set()
    for begin, length, is_kernel in misses.tolist():
        text = data[begin - base : begin - base + length]
        (kernels if is_kernel else names).add(text)
    interner.add(names, kernels)


_BITS = struct.Struct("<q")
_DOUBLE = struct.Struct("<d")


def _attributes(
    data: bytes, base: int, extras: NDArray[np.int64]
) -> dict[int, dict[str, AttributeValue]]:
    by_row: dict[int, dict[str, AttributeValue]] = {}
    try:
        for row, key, key_length, form, bits, length in extras.tolist():
            text = data[key - base : key - base + key_length].decode()
            value: Any
            if form == 0x18:
                value = bits
            elif form == 0x0A:
                value = data[bits - base : bits - base + length].decode()
            elif form == 0x3A:
                value = data[bits - base : bits - base + length]
            elif form == 0x10:
                value = bool(bits)
            else:
                (value,) = _DOUBLE.unpack(_BITS.pack(bits))
            by_row.setdefault(row, {})[text] = value
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"request of {len(data):,} bytes: a text is not UTF-8 ({error}): not an OTLP trace "
            "message"
        ) from error
    return by_row
