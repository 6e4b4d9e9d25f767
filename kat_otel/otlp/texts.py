"""Looking up texts by their bytes, in compiled code: hash, probe, compare every byte."""

from __future__ import annotations

from typing import Final

from kat_otel.compiled import inline, njit
from kat_otel.otlp import known, memory
from kat_otel.otlp.known import FACTOR as _FACTOR
from kat_otel.otlp.memory import load8, load32, load64, signed, store64, unsigned

__all__ = ["MISSING", "PROBES", "hash_of", "insert", "lookup", "same"]

MISSING: Final = -1
PROBES: Final = 32
"""Slots looked at before a text counts as missing: nobody can make a lookup long."""


@inline
def _tail(at: int, length: int, limit: int) -> int:
    """Returns the ``length`` (1 to 7) bytes at ``at`` as a word, without reading past ``limit``."""
    if limit - at >= 8:
        return load64(at) & ((unsigned(1) << unsigned(8 * length)) - unsigned(1))
    word = unsigned(0)
    for place in range(length):
        word |= unsigned(load8(at + place)) << unsigned(8 * place)
    return word


@inline
def hash_of(at: int, length: int, limit: int, seed: int) -> int:
    """Returns the hash of ``length`` bytes, uint64; the same text, the same seed, the same hash."""
    factor = unsigned(_FACTOR)
    mixed = (unsigned(seed) ^ unsigned(length)) * factor
    end = at + length
    while end - at >= 8:
        mixed = (mixed ^ load64(at)) * factor
        mixed ^= mixed >> unsigned(29)
        at += 8
    if at < end:
        mixed = (mixed ^ _tail(at, end - at, limit)) * factor
        mixed ^= mixed >> unsigned(29)
    return mixed * factor


@inline
def same(at: int, length: int, limit: int, text: int) -> int:
    """Returns whether the bytes are those at ``text``, where eight more bytes may be read."""
    end = at + length
    while end - at >= 8:
        if load64(at) != load64(text):
            return 0
        at += 8
        text += 8
    if at < end:
        found = _tail(at, end - at, limit)
        wanted = load64(text) & ((unsigned(1) << unsigned(8 * (end - at))) - unsigned(1))
        if found != wanted:
            return 0
    return 1


@inline
def lookup(
    at: int,
    length: int,
    limit: int,
    seed: int,
    slots: int,
    shift: int,
    texts: int,
    begins: int,
    lengths: int,
) -> int:
    """Returns the index of a text in the table, or MISSING.

    A slot is the upper half of the hash and the index plus one; zero is an empty slot. There are
    ``2**(64 - shift)`` slots, and PROBES more behind them, so that no probe wraps around.
    """
    mixed = hash_of(at, length, limit, seed)
    place = slots + 8 * signed(mixed >> unsigned(shift))
    last = place + 8 * PROBES
    # The slot's bits of the hash are its upper ones: the tag is what stands below them.
    tag = mixed & unsigned(0xFFFFFFFF)
    while place < last:
        slot = load64(place)
        if slot == unsigned(0):
            return MISSING
        if slot >> unsigned(32) == tag:
            index = signed(slot & unsigned(0xFFFFFFFF)) - 1
            if load32(lengths + 4 * index) == length and same(
                at, length, limit, texts + signed(load64(begins + 8 * index))
            ):
                return index
        place += 8
    return MISSING


@njit(f"int64({', '.join(['int64'] * 9)})", uses=(memory, known))
def insert(
    order: int,
    count: int,
    limit: int,
    seed: int,
    slots: int,
    shift: int,
    texts: int,
    begins: int,
    lengths: int,
) -> int:
    """Puts texts, ``count`` indices at ``order``, into the first free slots of their probes.

    A text that finds all PROBES taken is never found: its spans take the slow way, and are
    right. Returns how many found a slot.
    """
    entered = 0
    for turn in range(count):
        index = signed(load64(order + 8 * turn))
        begin = texts + signed(load64(begins + 8 * index))
        mixed = hash_of(begin, load32(lengths + 4 * index), limit, seed)
        place = slots + 8 * signed(mixed >> unsigned(shift))
        last = place + 8 * PROBES
        while place < last:
            if load64(place) == unsigned(0):
                tag = mixed & unsigned(0xFFFFFFFF)
                store64(place, signed((tag << unsigned(32)) | unsigned(index + 1)))
                entered += 1
                break
            place += 8
    return entered
