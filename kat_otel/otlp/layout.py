"""Where the walker puts what it finds: one block of memory a request, a column after another.

A column's place in the block follows from the number of spans; columns that are filled with
ones or zeros beforehand stand together, so that filling is one stroke.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.otlp import fields
from kat_otel.spans import COLUMNS

__all__ = ["INT_COLUMNS", "Block"]

_ALWAYS_64: Final = ("trace_hi", "trace_lo", "span_id", "parent_id", "start_ns", "duration_ns")
_UNKNOWN_64: Final = ("thread", "correlation", "graph_node", "bytes", "sequence")
_UNKNOWN_32: Final = ("step", "stream", "graph", "parent")
_ZERO_32: Final = ("grid", "block", "group")
_ALWAYS_32: Final = ("name", "resource")
_ALWAYS_8: Final = ("kind",)
_ORDER: Final = (*_ALWAYS_64, *_UNKNOWN_64, *_UNKNOWN_32, *_ZERO_32, *_ALWAYS_32, *_ALWAYS_8)

INT_COLUMNS: Final = tuple(column for column, _ in fields.SPAN_INTS.values())
"""Columns filled by integer attributes; their place here is their number in the walker."""


class Block:
    """The columns of ``count`` spans, uninitialised but for the fills."""

    def __init__(self, count: int) -> None:
        self._memory = np.empty(sum(COLUMNS[c].dtype.itemsize for c in _ORDER) * count, np.uint8)
        self.columns: dict[str, NDArray[Any]] = {}
        self._places: dict[str, int] = {}
        at = 0
        for name in _ORDER:
            self._places[name] = at
            dtype = COLUMNS[name].dtype
            size = dtype.itemsize * count
            self.columns[name] = self._memory[at : at + size].view(dtype)
            at += size
        wide, narrow = 8 * count, 4 * count
        ones = wide * len(_ALWAYS_64)
        zeros = ones + wide * len(_UNKNOWN_64) + narrow * len(_UNKNOWN_32)
        self._memory[ones:zeros] = 0xFF
        self._memory[zeros : zeros + narrow * len(_ZERO_32)] = 0

    @property
    def memory(self) -> NDArray[np.uint8]:
        """All columns, as bytes."""
        return self._memory

    def addresses(self, base: int) -> dict[str, int]:
        """Returns where every column begins, the block beginning at ``base``."""
        return {name: base + at for name, at in self._places.items()}
