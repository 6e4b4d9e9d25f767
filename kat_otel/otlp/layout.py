"""Where the walker puts what it finds: one block of memory a request, a column after another.

A column's place in the block follows from the number of spans; columns that are filled with
ones or zeros beforehand stand together, so that filling is one stroke.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel import fields
from kat_otel.otlp import arguments
from kat_otel.otlp.memory import address_of
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


_DTYPES: Final = tuple(COLUMNS[name].dtype for name in _ORDER)
_SIZES: Final = tuple(dtype.itemsize for dtype in _DTYPES)
_BEFORE: Final = tuple(accumulate(_SIZES, initial=0))
_PLACE_OF: Final[dict[str, int]] = dict(zip(_ORDER, _BEFORE, strict=False))
_ONES: Final = _PLACE_OF[_UNKNOWN_64[0]]
_ZEROS: Final = _PLACE_OF[_ZERO_32[0]]
_FREE: Final = _PLACE_OF[_ALWAYS_32[0]]
_ARGUMENTS: Final = np.array(
    [_PLACE_OF[name] for name in (*INT_COLUMNS, *arguments.COLUMNS)], np.int64
)


class Block:
    """The columns of ``count`` spans, uninitialised but for the fills.

    Attributes:
        memory: all columns, as bytes.
        columns: views of it, by name.
    """

    __slots__ = ("_count", "columns", "memory")

    def __init__(self, count: int) -> None:
        self._count = count
        memory = self.memory = np.empty(_BEFORE[-1] * count, np.uint8)
        self.columns: dict[str, NDArray[Any]] = {
            name: np.ndarray(count, dtype, memory, before * count)
            for name, dtype, before in zip(_ORDER, _DTYPES, _BEFORE, strict=False)
        }
        memory[_ONES * count : _ZEROS * count] = 0xFF
        memory[_ZEROS * count : _FREE * count] = 0

    def addresses(self) -> NDArray[np.int64]:
        """Returns where columns begin: those of integer attributes, then arguments.COLUMNS."""
        return address_of(self.memory) + _ARGUMENTS * self._count
