"""What the compiled walker is given: one array of int64, these are the places in it.

One array instead of fifty arguments, because a call is made for every request. Also the
places in the records that the walker hands back.
"""

from __future__ import annotations

from typing import Final

LIMIT: Final = 0
"""Address behind the request's last byte."""
BASE: Final = 1
"""Address of the request's first byte."""
SPANS: Final = 2
"""Begin and end of every span, two addresses each."""
SCOPES: Final = 3
"""First span of every scope, and the number of spans behind the last."""
SCOPE_COUNT: Final = 4
KNOWN: Final = 5
"""The table of known keys."""
KINDS: Final = 6
"""The table of names of span kinds."""
SLOTS: Final = 7
"""The hash table of texts, how far a hash is shifted to get its slot, and where it begins."""
SLOT_SHIFT: Final = 8
SEED: Final = 9
TEXTS: Final = 10
"""Their bytes, then begin, length, family and kind of each."""
TEXT_BEGIN: Final = 11
TEXT_LENGTH: Final = 12
TEXT_FAMILY: Final = 13
TEXT_KIND: Final = 14
MISSES: Final = 15
"""Texts that are not in the table, three int64 each, and room for how many."""
MISS_ROOM: Final = 16
EXTRAS: Final = 17
"""Attributes without a column, six int64 each, and room for how many."""
EXTRA_ROOM: Final = 18
SLOW: Final = 19
"""Rows left to the protobuf library, int64 each; room for all."""
MODE: Final = 20
"""What missing texts do: end the walk when their room is full, are counted to the last, or (the
last call) make their spans slow."""
MAX_TEXT: Final = 21
"""Longest text or bytes of an attribute; a span with a longer one is slow."""
RESULTS: Final = 22
"""Counts handed back: misses, extras, slow rows."""
INTS: Final = 23
"""Columns of integer attributes, in the order of INT_COLUMNS."""
TRACE_HI: Final = 40
TRACE_LO: Final = 41
SPAN_ID: Final = 42
PARENT_ID: Final = 43
START: Final = 44
DURATION: Final = 45
NAME: Final = 46
KIND: Final = 47
RESOURCE: Final = 48
GRID: Final = 49
BLOCK: Final = 50
GROUP: Final = 51
SIZE: Final = 52

COLUMNS: Final = (
    "trace_hi",
    "trace_lo",
    "span_id",
    "parent_id",
    "start_ns",
    "duration_ns",
    "name",
    "kind",
    "resource",
    "grid",
    "block",
    "group",
)
"""The columns from TRACE_HI on."""


# one record of a missing text

MISS_BEGIN: Final = 0
MISS_LENGTH: Final = 1
MISS_IS_KERNEL: Final = 2
MISS_SIZE: Final = 3


# one record of an attribute without a column

EXTRA_ROW: Final = 0
EXTRA_KEY: Final = 1
EXTRA_KEY_LENGTH: Final = 2
EXTRA_TYPE: Final = 3
"""The tag byte of the value's field in AnyValue."""
EXTRA_VALUE: Final = 4
"""Its bits, or the address of its first byte."""
EXTRA_LENGTH: Final = 5
EXTRA_SIZE: Final = 6

# values of MODE

MODE_EARLY: Final = 0
MODE_ALL: Final = 1
MODE_LAST: Final = 2
