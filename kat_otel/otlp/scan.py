"""First pass over a request: where its resources, scopes and spans lie. Compiled.

The walker's grammar is narrow on purpose: what a span or a header holds is nobody's business
here, and what is not the form that every exporter writes is left to the protobuf library or
refused. Every read is preceded by a comparison with ``end``.
"""

from __future__ import annotations

from typing import Final

from kat_otel.compiled import inline, njit
from kat_otel.otlp import memory
from kat_otel.otlp.memory import load8, signed, store64

__all__ = ["GROUP", "MALFORMED", "PIECE", "length_at", "scan", "skip"]

MALFORMED: Final = -1
GROUP: Final = -2
"""A group: proto3 has none, and a request that needs one is no OTLP."""

PIECE: Final = 3
"""Numbers of a piece of a header: its owner (a scope, or ~resource_spans), begin, end."""


@inline
def length_at(at: int, end: int) -> tuple[int, int]:
    """Returns the length that stands at ``at`` and where the bytes begin; -1 if they do not fit."""
    value = 0
    shift = 0
    while at < end and shift < 35:
        byte = load8(at)
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > end - at:
                return -1, at
            return value, at
        shift += 7
    return -1, at


@inline
def skip(wire_type: int, at: int, end: int) -> int:
    """Returns where a field's value ends, MALFORMED or GROUP."""
    if wire_type == 0:
        last = at + 10
        while at < end and at < last:
            if load8(at) < 0x80:
                return at + 1
            at += 1
        return MALFORMED
    if wire_type == 1:
        return at + 8 if end - at >= 8 else MALFORMED
    if wire_type == 2:
        length, begin = length_at(at, end)
        return begin + length if length >= 0 else MALFORMED
    if wire_type == 5:
        return at + 4 if end - at >= 4 else MALFORMED
    return GROUP if wire_type in (3, 4) else MALFORMED


@inline
def _tag_at(at: int, end: int) -> tuple[int, int]:
    """Returns a field's tag and where its value begins; tag 0 if there is none."""
    value = 0
    shift = 0
    while at < end and shift < 35:
        byte = load8(at)
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 32 != 0 or value >> 3 == 0:
                return 0, at
            return value, at
        shift += 7
    return 0, at


@inline
def _add_piece(
    pieces: int, room: int, count: int, owner: int, begin: int, end: int, joined: int
) -> tuple[int, int]:
    """Adds a piece, or lengthens the last; returns the count and 1: the next may lengthen it."""
    if joined:
        if count <= room:
            store64(pieces + 24 * (count - 1) + 16, end)
        return count, 1
    if count < room:
        store64(pieces + 24 * count, owner)
        store64(pieces + 24 * count + 8, begin)
        store64(pieces + 24 * count + 16, end)
    return count + 1, 1


@njit(
    "int64(int64, int64, int64, int64, int64, int64, int64, int64, int64)",
    uses=(memory,),
)
def scan(
    base: int,
    limit: int,
    spans: int,
    span_room: int,
    scopes: int,
    scope_room: int,
    pieces: int,
    piece_room: int,
    counts: int,
) -> int:
    """Finds resources, scopes, spans and what else their messages hold.

    Args:
        base: address of the request.
        limit: address behind it.
        spans: takes begin and end of every span, two int64 each.
        span_room: how many fit.
        scopes: takes first span and resource_spans of every scope, two int64 each.
        scope_room: how many fit; one more is written behind the last.
        pieces: takes the stretches of headers, :data:`PIECE` int64 each.
        piece_room: how many fit.
        counts: takes how many spans, scopes, resource_spans and pieces there are, which may be
            more than fit: then nothing else is of use, and the caller makes room.

    Returns:
        0; or MALFORMED or GROUP, and ``counts`` holds the address where.
    """
    span_count = scope_count = resource_count = piece_count = 0
    at = base
    while at < limit:
        place = at
        tag, at = _tag_at(at, limit)
        if tag != 0x0A:  # the message has one field; others are checked and forgotten
            at = skip(tag & 7, at, limit) if tag else MALFORMED
            if at < 0:
                store64(counts, place)
                return at
            continue
        size, at = length_at(at, limit)
        if size < 0:
            store64(counts, place)
            return MALFORMED
        resource_end = at + size
        joined = 0
        while at < resource_end:
            place = at
            tag, at = _tag_at(at, resource_end)
            if tag != 0x12:
                at = skip(tag & 7, at, resource_end) if tag else MALFORMED
                if at < 0:
                    store64(counts, place)
                    return at
                piece_count, joined = _add_piece(
                    pieces, piece_room, piece_count, ~resource_count, place, at, joined
                )
                continue
            size, at = length_at(at, resource_end)
            if size < 0:
                store64(counts, place)
                return MALFORMED
            scope_end = at + size
            if scope_count < scope_room:
                store64(scopes + 16 * scope_count, span_count)
                store64(scopes + 16 * scope_count + 8, resource_count)
            joined = 0
            while at < scope_end:
                place = at
                tag, at = _tag_at(at, scope_end)
                if tag != 0x12:
                    at = skip(tag & 7, at, scope_end) if tag else MALFORMED
                    if at < 0:
                        store64(counts, place)
                        return at
                    piece_count, joined = _add_piece(
                        pieces, piece_room, piece_count, scope_count, place, at, joined
                    )
                    continue
                size, at = length_at(at, scope_end)
                if size < 0:
                    store64(counts, place)
                    return MALFORMED
                if span_count < span_room:
                    store64(spans + 16 * span_count, at)
                    store64(spans + 16 * span_count + 8, at + size)
                at += size
                span_count += 1
                joined = 0
            scope_count += 1
            joined = 0
        resource_count += 1
    if scope_count <= scope_room:
        store64(scopes + 16 * scope_count, span_count)
    store64(counts, span_count)
    store64(counts + 8, scope_count)
    store64(counts + 16, resource_count)
    store64(counts + 24, piece_count)
    return signed(0)
