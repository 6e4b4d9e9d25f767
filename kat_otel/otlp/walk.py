"""Second pass over a request: spans to columns. Compiled.

A span is taken here if it is of the form that exporters of kernel spans write: canonical
fields, scalar attributes. Whatever else it holds makes it *slow*: its bytes go to the protobuf
library, which says what they mean or refuses the request. So nothing is decided here that the
library could decide otherwise, and every read is preceded by a comparison with an end.
"""

from __future__ import annotations

from typing import Final

from kat_otel.compiled import inline, njit
from kat_otel.fields import INT64_MAX, REST
from kat_otel.otlp import arguments, known, memory, scan, texts
from kat_otel.otlp.memory import (
    big_endian64,
    load8,
    load32,
    load64,
    signed,
    store8,
    store32,
    store64,
    unsigned,
)
from kat_otel.otlp.scan import length_at
from kat_otel.otlp.texts import MISSING, lookup, same
from kat_otel.spans import SpanKind

__all__ = ["walk"]

_KERNEL: Final = int(SpanKind.KERNEL)
_COLLECTIVE: Final = int(SpanKind.COLLECTIVE)
_LAUNCH: Final = int(SpanKind.LAUNCH)
_OTHER: Final = int(SpanKind.OTHER)
_STREAM_BIT: Final = 1 << known.number_of("stream")
_CORRELATION_BIT: Final = 1 << known.number_of("correlation")
_ENTRY: Final = known.ENTRY_BYTES
_REST_LENGTH: Final = len(REST)
_UNSAID: Final = -1


@inline
def _find(table: int, at: int, length: int) -> int:
    """Returns the address of the entry of a known text of 4 to 24 bytes, or 0."""
    if length < 4 or length > 24:
        return 0
    middle = unsigned(0)
    if length >= 8:
        first = load64(at)
        last = load64(at + length - 8)
        if length >= 16:
            middle = load64(at + 8)
    else:
        first = unsigned(load32(at)) & unsigned(0xFFFFFFFF)
        last = unsigned(load32(at + length - 4)) & unsigned(0xFFFFFFFF)
    mixed = first + (last ^ load64(table)) * unsigned(31) + unsigned(length)
    slot = signed((mixed * unsigned(known.FACTOR)) >> unsigned(64 - known.SLOT_BITS))
    entry = table + _ENTRY * (1 + slot)
    if (
        load64(entry) == first
        and load64(entry + 8) == last
        and load64(entry + 16) == middle
        and load64(entry + 24) == unsigned(length)
    ):
        return entry
    return 0


@inline
def _varint(at: int, end: int) -> tuple[int, int]:
    """Returns the value of a varint of at most nine bytes that ends at ``end``, and 1; else 0, 0."""  # noqa: E501
    value = unsigned(0)
    shift = unsigned(0)
    if end - at > 9 or end <= at:
        return value, 0
    while at < end:
        byte = load8(at)
        value |= unsigned(byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, (1 if at == end else 0)
        shift += unsigned(7)
    return value, 0


@inline
def _miss(misses: int, room: int, count: int, text: int, length: int, kernel: int) -> int:
    """Notes a text that the table lacks, if there is room; returns how many there are now."""
    if count < room:
        record = misses + 8 * arguments.MISS_SIZE * count
        store64(record, text)
        store64(record + 8, length)
        store64(record + 16, kernel)
    return count + 1


@inline
def _argument(frame: int, place: int) -> int:
    return signed(load64(frame + 8 * place))


@njit("int64(int64)", uses=(arguments, memory, known, scan, texts))
def walk(frame: int) -> int:
    """Fills the columns of all spans that it can take.

    Args:
        frame: address of the arguments, see :mod:`kat_otel.otlp.arguments`.

    Returns:
        0. Counts of misses, extras and slow rows stand at ``RESULTS``; a count above its
        room means that the caller makes room and calls again.
    """
    limit = _argument(frame, arguments.LIMIT)
    spans = _argument(frame, arguments.SPANS)
    scopes = _argument(frame, arguments.SCOPES)
    scope_count = _argument(frame, arguments.SCOPE_COUNT)
    keys = _argument(frame, arguments.KNOWN)
    kinds = _argument(frame, arguments.KINDS)
    slots = _argument(frame, arguments.SLOTS)
    slot_shift = _argument(frame, arguments.SLOT_SHIFT)
    seed = _argument(frame, arguments.SEED)
    text_bytes = _argument(frame, arguments.TEXTS)
    begins = _argument(frame, arguments.TEXT_BEGIN)
    lengths = _argument(frame, arguments.TEXT_LENGTH)
    families = _argument(frame, arguments.TEXT_FAMILY)
    text_kinds = _argument(frame, arguments.TEXT_KIND)
    misses = _argument(frame, arguments.MISSES)
    miss_room = _argument(frame, arguments.MISS_ROOM)
    extras = _argument(frame, arguments.EXTRAS)
    extra_room = _argument(frame, arguments.EXTRA_ROOM)
    slow = _argument(frame, arguments.SLOW)
    last_call = _argument(frame, arguments.MODE) == arguments.MODE_LAST
    ends_early = _argument(frame, arguments.MODE) == arguments.MODE_EARLY
    max_text = _argument(frame, arguments.MAX_TEXT)
    results = _argument(frame, arguments.RESULTS)
    ints = frame + 8 * arguments.INTS
    trace_hi = _argument(frame, arguments.TRACE_HI)
    trace_lo = _argument(frame, arguments.TRACE_LO)
    span_id = _argument(frame, arguments.SPAN_ID)
    parent_id = _argument(frame, arguments.PARENT_ID)
    starts = _argument(frame, arguments.START)
    durations = _argument(frame, arguments.DURATION)
    names = _argument(frame, arguments.NAME)
    span_kinds = _argument(frame, arguments.KIND)
    resources = _argument(frame, arguments.RESOURCE)
    grids = _argument(frame, arguments.GRID)
    blocks = _argument(frame, arguments.BLOCK)
    groups = _argument(frame, arguments.GROUP)

    miss_count = extra_count = slow_count = 0
    for scope in range(scope_count):
        first_row = signed(load64(scopes + 16 * scope))
        row_end = signed(load64(scopes + 16 * scope + 16))
        for row in range(first_row, row_end):
            if ends_early and miss_count >= miss_room:
                store64(results, miss_count)
                return 0
            at = signed(load64(spans + 16 * row))
            end = signed(load64(spans + 16 * row + 8))
            store32(resources + 4 * row, scope)
            hi = lo = own = above = unsigned(0)
            start = stop = unsigned(0)
            name = name_length = 0
            kernel = kernel_length = 0
            grid = grid_length = 0
            block = block_length = 0
            group = group_length = 0
            seen = fitted = 0
            kind = _UNSAID
            named = 0
            bad = 0
            extras_before = extra_count
            while at < end:
                tag = load8(at)
                at += 1
                if tag == 0x4A:  # attributes
                    size, at = length_at(at, end)
                    stop_at = at + size
                    # KeyValue: key, one byte of length, the key, value, its length, the value.
                    if size < 4 or load8(at) != 0x0A:
                        bad = 1
                        break
                    key_length = load8(at + 1)
                    key = at + 2
                    key_end = key + key_length
                    if key_length >= 0x80 or stop_at - key_end < 2 or load8(key_end) != 0x12:
                        bad = 1
                        break
                    size, value = length_at(key_end + 1, stop_at)
                    if size < 2 or value + size != stop_at:
                        bad = 1
                        break
                    entry = _find(keys, key, key_length)
                    number = 63  # of an unknown key
                    if entry:
                        number = signed(load64(entry + 32))
                        bit = 1 << number
                        if seen & bit:  # the library knows which of the two holds
                            bad = 1
                            break
                        seen |= bit
                    form = load8(value)
                    kept = 0
                    bits = unsigned(0)
                    size = 0
                    if form == 0x18:  # int_value
                        bits, fine = _varint(value + 1, stop_at)
                        if not fine:
                            bad = 1
                            break
                        if number < known.FIRST_TEXT and bits <= load64(entry + 40):
                            column = signed(load64(ints + 8 * number))
                            if load64(entry + 48) == unsigned(4):
                                store32(column + 4 * row, signed(bits))
                            else:
                                store64(column + 8 * row, signed(bits))
                            fitted |= 1 << number
                            kept = 1
                    elif form in (0x0A, 0x3A):
                        size, text = length_at(value + 1, stop_at)
                        if size < 0 or text + size != stop_at or size > max_text:
                            bad = 1
                            break
                        if form == 0x3A and key_length == _REST_LENGTH:  # perhaps our own key
                            bad = 1
                            break
                        bits = unsigned(text)
                        if form == 0x0A and size > 0:
                            kept = 1
                            if number == known.IS_KERNEL_NAME:
                                kernel, kernel_length = text, size
                            elif number == known.IS_GRID:
                                grid, grid_length = text, size
                            elif number == known.IS_BLOCK:
                                block, block_length = text, size
                            elif number == known.IS_GROUP:
                                group, group_length = text, size
                            elif number == known.IS_SPAN_KIND:
                                entry = _find(kinds, text, size)
                                if entry:
                                    kind = signed(load64(entry + 32))
                                else:
                                    kept = 0
                            else:
                                kept = 0
                    elif form == 0x10:  # bool_value
                        if stop_at - value != 2 or load8(value + 1) > 1:
                            bad = 1
                            break
                        bits = unsigned(load8(value + 1))
                    elif form == 0x21 and stop_at - value == 9:  # double_value
                        bits = load64(value + 1)
                    else:
                        bad = 1
                        break
                    if not kept:
                        if extra_count < extra_room:
                            record = extras + 8 * arguments.EXTRA_SIZE * extra_count
                            store64(record, row)
                            store64(record + 8 * arguments.EXTRA_KEY, key)
                            store64(record + 8 * arguments.EXTRA_KEY_LENGTH, key_length)
                            store64(record + 8 * arguments.EXTRA_TYPE, form)
                            store64(record + 8 * arguments.EXTRA_VALUE, signed(bits))
                            store64(record + 8 * arguments.EXTRA_LENGTH, size)
                        extra_count += 1
                    at = stop_at
                elif tag == 0x39:  # start_time_unix_nano
                    if end - at < 8:
                        bad = 1
                        break
                    start = load64(at)
                    at += 8
                elif tag == 0x41:  # end_time_unix_nano
                    if end - at < 8:
                        bad = 1
                        break
                    stop = load64(at)
                    at += 8
                elif tag == 0x0A:  # trace_id
                    if end - at < 17 or load8(at) != 16:
                        bad = 1
                        break
                    hi = big_endian64(load64(at + 1))
                    lo = big_endian64(load64(at + 9))
                    at += 17
                elif tag == 0x12:  # span_id
                    if end - at < 9 or load8(at) != 8:
                        bad = 1
                        break
                    own = big_endian64(load64(at + 1))
                    at += 9
                elif tag == 0x22:  # parent_span_id
                    if end - at >= 1 and load8(at) == 0:
                        above = unsigned(0)
                        at += 1
                        continue
                    if end - at < 9 or load8(at) != 8:
                        bad = 1
                        break
                    above = big_endian64(load64(at + 1))
                    at += 9
                elif tag == 0x2A:  # name
                    name_length, at = length_at(at, end)
                    if name_length < 0 or named or name_length > max_text:
                        bad = 1
                        break
                    name = at
                    at += name_length
                    named = 1
                elif tag == 0x30:  # kind: OpenTelemetry's; unspecified and internal say nothing
                    if end - at < 1 or load8(at) > 1:
                        bad = 1
                        break
                    at += 1
                elif tag in (0x50, 0x60, 0x70):
                    if end - at < 1 or load8(at) != 0:
                        bad = 1
                        break
                    at += 1
                elif tag == 0x85:  # flags
                    if end - at < 5 or load8(at) != 0x01 or load32(at + 1) != 0:
                        bad = 1
                        break
                    at += 5
                else:
                    bad = 1
                    break
            if (
                bad
                or (hi | lo) == unsigned(0)
                or own == unsigned(0)
                or stop > unsigned(INT64_MAX)
                or start > stop
            ):
                store64(slow + 8 * slow_count, row)
                slow_count += 1
                extra_count = extras_before
                continue
            missed = miss_count
            text_index = 0
            if kernel_length:
                if kind not in (_UNSAID, _KERNEL, _COLLECTIVE):
                    bad = 1
                else:
                    text_index = lookup(
                        kernel,
                        kernel_length,
                        limit,
                        seed,
                        slots,
                        slot_shift,
                        text_bytes,
                        begins,
                        lengths,
                    )
                    relative = _UNSAID
                    if text_index != MISSING:
                        relative = signed(load32(families + 4 * text_index))
                    if relative == _UNSAID:
                        miss_count = _miss(misses, miss_room, miss_count, kernel, kernel_length, 1)
                    elif name_length:
                        # The span's own name says the same, or is kept beside.
                        fits = 0
                        if name_length == load32(lengths + 4 * relative):
                            begin = signed(load64(begins + 8 * relative))
                            fits = same(name, name_length, limit, text_bytes + begin)
                        if not fits and name_length == kernel_length:
                            begin = signed(load64(begins + 8 * text_index))
                            fits = same(name, name_length, limit, text_bytes + begin)
                        if not fits:
                            bad = 1
                    if kind == _UNSAID:
                        kind = _KERNEL
            elif name_length:
                text_index = lookup(
                    name, name_length, limit, seed, slots, slot_shift, text_bytes, begins, lengths
                )
                if text_index == MISSING:
                    miss_count = _miss(misses, miss_room, miss_count, name, name_length, 0)
            if kind == _UNSAID:
                kind = _OTHER
                if fitted & _CORRELATION_BIT:
                    kind = _LAUNCH
                if fitted & _STREAM_BIT and text_index > 0 and load8(text_kinds + text_index):
                    kind = load8(text_kinds + text_index)
            if grid_length:
                index = lookup(
                    grid, grid_length, limit, seed, slots, slot_shift, text_bytes, begins, lengths
                )
                store32(grids + 4 * row, index)
                if index == MISSING:
                    miss_count = _miss(misses, miss_room, miss_count, grid, grid_length, 0)
            if block_length:
                index = lookup(
                    block, block_length, limit, seed, slots, slot_shift, text_bytes, begins, lengths
                )
                store32(blocks + 4 * row, index)
                if index == MISSING:
                    miss_count = _miss(misses, miss_room, miss_count, block, block_length, 0)
            if group_length:
                index = lookup(
                    group, group_length, limit, seed, slots, slot_shift, text_bytes, begins, lengths
                )
                store32(groups + 4 * row, index)
                if index == MISSING:
                    miss_count = _miss(misses, miss_room, miss_count, group, group_length, 0)
            if bad or (last_call and miss_count > missed):
                store64(slow + 8 * slow_count, row)
                slow_count += 1
                extra_count = extras_before
                continue
            store64(trace_hi + 8 * row, signed(hi))
            store64(trace_lo + 8 * row, signed(lo))
            store64(span_id + 8 * row, signed(own))
            store64(parent_id + 8 * row, signed(above))
            store64(starts + 8 * row, signed(start))
            store64(durations + 8 * row, signed(stop - start))
            store32(names + 4 * row, text_index)
            store8(span_kinds + row, kind)
    store64(results, miss_count)
    store64(results + 8, extra_count)
    store64(results + 16, slow_count)
    return 0
