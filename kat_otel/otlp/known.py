"""The known keys and kinds as tables that the walker asks: perfect hashes of a few words.

A text of 8 to 24 bytes is told by three overlapping words and its length, and so by four
comparisons; which four is one multiplication, by a factor that was searched for so that no
two known texts meet.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel import fields, semconv
from kat_otel.otlp.layout import INT_COLUMNS

__all__ = [
    "ENTRY_BYTES",
    "FACTOR",
    "FIRST_TEXT",
    "IS_BLOCK",
    "IS_GRID",
    "IS_GROUP",
    "IS_KERNEL_NAME",
    "IS_SPAN_KIND",
    "KEYS",
    "KINDS",
    "SLOT_BITS",
    "entries",
    "number_of",
]

FIRST_TEXT: Final = 16
"""Numbers of known keys below it are integers', in the order of INT_COLUMNS."""
IS_KERNEL_NAME: Final = 16
IS_SPAN_KIND: Final = 17
IS_GRID: Final = 18
IS_BLOCK: Final = 19
IS_GROUP: Final = 20

FACTOR: Final = 0x9E3779B97F4A7C15
SLOT_BITS: Final = 7
ENTRY_BYTES: Final = 56
"""First, last and middle word, length, number, largest value, bytes of the column's items."""


def _words(text: bytes) -> tuple[int, int, int]:
    """Returns first, last and middle word as the walker reads them; short texts by halves."""
    size = 8 if len(text) >= 8 else 4
    middle = text[8:16] if len(text) >= 16 else b""
    first, last = text[:size], text[-size:]
    return (
        int.from_bytes(first, "little"),
        int.from_bytes(last, "little"),
        int.from_bytes(middle, "little"),
    )


def slot_of(first: int, last: int, length: int, salt: int) -> int:
    """Returns the slot of a text; the walker does the same in machine words."""
    mixed = (first + (last ^ salt) * 31 + length) & (2**64 - 1)
    return (mixed * FACTOR & (2**64 - 1)) >> (64 - SLOT_BITS)


def entries(known: dict[bytes, tuple[int, int, int]]) -> NDArray[np.uint64]:
    """Returns the table of ``known`` texts, uint64 ``(1 + 2**SLOT_BITS, 7)``; row 0 has the salt.

    Args:
        known: text (4 to 24 bytes) -> number, largest value, item size.

    Raises:
        ValueError: no salt separates them, or a text has another length.
    """
    if any(not 4 <= len(text) <= 24 for text in known):
        raise ValueError(f"a known text is not of 4 to 24 bytes: {sorted(known)}")
    for salt in range(1, 10_000):
        slots: dict[int, bytes] = {}
        for text in known:
            first, last, _ = _words(text)
            slots.setdefault(slot_of(first, last, len(text), salt), text)
        if len(slots) == len(known):
            break
    else:
        raise ValueError(f"no salt separates the known texts: {sorted(known)}")
    table = np.zeros((1 + 2**SLOT_BITS, ENTRY_BYTES // 8), dtype=np.uint64)
    table[0, 0] = salt
    for slot, text in slots.items():
        table[1 + slot] = [*_words(text), len(text), *known[text]]
    return table


def number_of(column: str) -> int:
    """Returns the walker's number of the key that fills an integer column."""
    return INT_COLUMNS.index(column)


def _keys() -> dict[bytes, tuple[int, int, int]]:
    known = {
        key.encode(): (number_of(column), largest, 4 if largest < 2**32 else 8)
        for key, (column, largest) in fields.SPAN_INTS.items()
    }
    texts = {semconv.KERNEL_NAME: IS_KERNEL_NAME, semconv.SPAN_KIND: IS_SPAN_KIND}
    numbers = {"grid": IS_GRID, "block": IS_BLOCK, "group": IS_GROUP}
    texts |= {key: numbers[column] for key, column in fields.SPAN_TEXTS.items()}
    return known | {key.encode(): (number, 0, 0) for key, number in texts.items()}


KEYS: Final = entries(_keys())
KINDS: Final = entries(
    {name.encode(): (int(kind), 0, 0) for name, kind in fields.KIND_OF_NAME.items()}
)
