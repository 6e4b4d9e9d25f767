"""What is worked out once per string, though the same strings come with every step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import StringTable

__all__ = ["PerString", "text_hash"]

_MAX_TABLES = 4
"""Tables remembered: mostly it is one, which all batches share."""


class PerString:
    """A number for each string of a table, worked out when it is first asked for.

    A :class:`StringTable` only grows, so what was worked out stays true. The tables are held
    on to, lest another one takes the place of a freed one in memory and is mistaken for it.

    Args:
        function: from text to number; called once per string and table.
    """

    def __init__(self, function: Callable[[str], int]) -> None:
        self._function = function
        self._tables: OrderedDict[int, tuple[StringTable, list[NDArray[np.int64]]]] = OrderedDict()

    def of(self, strings: StringTable, index: NDArray[np.int32]) -> NDArray[np.int64]:
        """Returns the numbers of the strings ``index``, int64, of its shape."""
        values, known = self._arrays(strings)
        missing = known[index] == 0
        if missing.any():
            new: list[int] = np.unique(index[missing]).tolist()
            values[new] = [self._function(strings[i]) for i in new]
            known[new] = 1
        return values[index]

    def _arrays(self, strings: StringTable) -> list[NDArray[np.int64]]:
        """Values, and whether they are known: two arrays as long as the table at least."""
        entry = self._tables.get(id(strings))
        if entry is None:
            entry = self._tables[id(strings)] = (strings, [np.zeros(0, np.int64)] * 2)
            while len(self._tables) > _MAX_TABLES:
                self._tables.popitem(last=False)
        arrays = entry[1]
        short = len(strings) - len(arrays[0])
        if short > 0:
            room = np.zeros(short + len(strings) // 2, np.int64)
            arrays[:] = [np.concatenate([array, room]) for array in arrays]
        return arrays


def text_hash(text: str) -> int:
    """Returns a signed 64-bit hash that is the same in every process, unlike ``hash``."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
