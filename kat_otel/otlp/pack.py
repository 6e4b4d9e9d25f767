"""Columns to the wire bytes of spans. Compiled; first how long each is, then its bytes.

What recurs (names, kinds, grids, keys) comes packed, as stretches of bytes; ids, times and
integers are written here. Copies go by whole words: stretches are padded by a word, and the
output by :data:`SLACK` bytes, so that the last copy stays inside.
"""

from __future__ import annotations

from typing import Final

from kat_otel.compiled import inline, njit
from kat_otel.otlp import memory
from kat_otel.otlp.memory import (
    big_endian64,
    load8,
    load32,
    load64,
    signed,
    store8,
    store64,
    unsigned,
)

__all__ = ["SLACK", "measure", "write"]

SLACK: Final = 64

# Places in the array of arguments: addresses of columns, then of packed stretches.
ROWS: Final = 0
TRACE_HI: Final = 1
TRACE_LO: Final = 2
SPAN_ID: Final = 3
PARENT_ID: Final = 4
START: Final = 5
DURATION: Final = 6
INTS: Final = 7
"""Per integer attribute: its column, bytes of an item, its template, bytes of its key."""
INT_SIZE: Final = 4
INT_COUNT: Final = 8
STRETCHES: Final = INTS + INT_SIZE * INT_COUNT
"""Per kind of stretch (head, grid, block, group, extras): which one each span has (int32, -1 for
none; 0 instead of an address if no span has any), their bytes, and where each begins (int64)."""
STRETCH_SIZE: Final = 3
STRETCH_COUNT: Final = 5
SIZE: Final = STRETCHES + STRETCH_SIZE * STRETCH_COUNT

_TIMES: Final = 18
_IDS: Final = 28
_PARENT: Final = 10


@inline
def _varint_size(value: int) -> int:
    size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


@inline
def _write_varint(value: int, to: int) -> int:
    while value >= 0x80:
        store8(to, (value & 0x7F) | 0x80)
        value >>= 7
        to += 1
    store8(to, value)
    return to + 1


@inline
def _copy(begin: int, size: int, to: int) -> int:
    end = to + size
    while to < end:
        store64(to, signed(load64(begin)))
        begin += 8
        to += 8
    return end


@inline
def _argument(arguments: int, place: int) -> int:
    return signed(load64(arguments + 8 * place))


@inline
def _int_at(arguments: int, place: int, row: int) -> int:
    column = _argument(arguments, place)
    if _argument(arguments, place + 1) == 4:
        return load32(column + 4 * row)
    return signed(load64(column + 8 * row))


@njit("int64(int64, int64, int64)", uses=(memory,))
def measure(arguments: int, count: int, sizes: int) -> int:
    """Writes the size of every span's message to ``sizes``, int64 ``(count,)``."""
    rows = _argument(arguments, ROWS)
    parents = _argument(arguments, PARENT_ID)
    for at in range(count):
        row = signed(load64(rows + 8 * at))
        size = _IDS + _TIMES
        if load64(parents + 8 * row) != unsigned(0):
            size += _PARENT
        for number in range(INT_COUNT):
            place = INTS + INT_SIZE * number
            value = _int_at(arguments, place, row)
            if value >= 0:
                size += _argument(arguments, place + 3) + 7 + _varint_size(value)
        for number in range(STRETCH_COUNT):
            place = STRETCHES + STRETCH_SIZE * number
            which = _argument(arguments, place)
            if which:
                index = load32(which + 4 * at)
                if index >= 0:
                    begins = _argument(arguments, place + 2) + 8 * index
                    size += signed(load64(begins + 8)) - signed(load64(begins))
        store64(sizes + 8 * at, size)
    return 0


@inline
def _write_stretch(arguments: int, number: int, at: int, to: int) -> int:
    place = STRETCHES + STRETCH_SIZE * number
    which = _argument(arguments, place)
    if which:
        index = load32(which + 4 * at)
        if index >= 0:
            begins = _argument(arguments, place + 2) + 8 * index
            begin = signed(load64(begins))
            size = signed(load64(begins + 8)) - begin
            to = _copy(_argument(arguments, place + 1) + begin, size, to)
    return to


@njit("int64(int64, int64, int64, int64, int64)", uses=(memory,))
def write(arguments: int, first: int, last: int, sizes: int, to: int) -> int:
    """Writes spans ``first`` to ``last`` (excluded) as fields of ScopeSpans; returns the end."""
    rows = _argument(arguments, ROWS)
    trace_hi = _argument(arguments, TRACE_HI)
    trace_lo = _argument(arguments, TRACE_LO)
    span_id = _argument(arguments, SPAN_ID)
    parents = _argument(arguments, PARENT_ID)
    starts = _argument(arguments, START)
    durations = _argument(arguments, DURATION)
    for at in range(first, last):
        row = signed(load64(rows + 8 * at))
        store8(to, 0x12)
        to = _write_varint(signed(load64(sizes + 8 * at)), to + 1)
        store8(to, 0x0A)
        store8(to + 1, 16)
        store64(to + 2, signed(big_endian64(load64(trace_hi + 8 * row))))
        store64(to + 10, signed(big_endian64(load64(trace_lo + 8 * row))))
        store8(to + 18, 0x12)
        store8(to + 19, 8)
        store64(to + 20, signed(big_endian64(load64(span_id + 8 * row))))
        to += _IDS
        parent = load64(parents + 8 * row)
        if parent != unsigned(0):
            store8(to, 0x22)
            store8(to + 1, 8)
            store64(to + 2, signed(big_endian64(parent)))
            to += _PARENT
        to = _write_stretch(arguments, 0, at, to)
        start = signed(load64(starts + 8 * row))
        store8(to, 0x39)
        store64(to + 1, start)
        store8(to + 9, 0x41)
        store64(to + 10, start + signed(load64(durations + 8 * row)))
        to += _TIMES
        for number in range(INT_COUNT):
            place = INTS + INT_SIZE * number
            value = _int_at(arguments, place, row)
            if value >= 0:
                # 4a, length, 0a, length of the key, the key, 12, length, 18: then the varint.
                key_size = _argument(arguments, place + 3)
                digits = _varint_size(value)
                _copy(_argument(arguments, place + 2), key_size + 7, to)
                store8(to + 1, load8(to + 1) + digits)
                store8(to + key_size + 5, 1 + digits)
                to = _write_varint(value, to + key_size + 7)
        for number in range(1, STRETCH_COUNT):
            to = _write_stretch(arguments, number, at, to)
    return to
