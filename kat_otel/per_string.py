"""What is worked out once per string, though the same strings come with every step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import StringTable

__all__ = ["NEW", "PerString", "text_hash"]

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
        self._tables: OrderedDict[int, tuple[StringTable, NDArray[np.int64]]] = OrderedDict()

    def of(self, strings: StringTable, index: NDArray[np.int32]) -> NDArray[np.int64]:
        """Returns the numbers of the strings ``index``, int64, of its shape."""
        values = self.values(strings)
        found = values.take(index)
        if found.size and found.min() == NEW:
            new: list[int] = np.unique(index[found == NEW]).tolist()
            values[new] = [max(self._function(strings[i]), NEW + 1) for i in new]
            found = values.take(index)
        return found

    def values(self, strings: StringTable) -> NDArray[np.int64]:
        """Returns an array as long as the table at least, NEW where nothing is known yet."""
        table, values = self._tables.get(id(strings), (strings, _NOTHING))
        short = len(table) - len(values)
        if short > 0:
            room = np.full(short + len(table) // 2, NEW)
            values = np.concatenate([values, room])
            self._tables[id(strings)] = table, values
            while len(self._tables) > _MAX_TABLES:
                self._tables.popitem(last=False)
        return values


NEW = np.iinfo(np.int64).min
"""Of a text whose number has not been worked out."""
_NOTHING = np.empty(0, np.int64)


def text_hash(text: str) -> int:
    """Returns a signed 64-bit hash that is the same in every process, unlike ``hash``."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
