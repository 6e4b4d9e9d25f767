"""The texts of a process's spans: kernels demangled, sizes spelled, each one once.

One :class:`StringTable` serves many steps, so that whoever works something out per text does it
once. When it has grown past :data:`MAX_TEXTS` a new one takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.steps.demangle import demangled
from kat_otel.kernels import COPY_KINDS, semantics
from kat_otel.per_string import PerString
from kat_otel.spans import SpanKind, StringTable

__all__ = ["MAX_TEXTS", "SLOTS", "Names", "Numbers"]

MAX_TEXTS: Final = 1 << 17

_LAUNCH: Final = re.compile(
    r"(cuda|cu|hip)(GraphLaunch|Launch(?!HostFunc)|ModuleLaunch|Mem(cpy|set))"
)
_WAIT: Final = re.compile(r"\w*Synchronize")
SLOTS: Final = 1 << 14
"""Places of a :class:`Numbers`."""

_MOST_KEYS: Final = 1 << 18

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class Numbers:
    """A small number for each of many 64-bit keys, most of them seen before.

    Keys are looked up at the place that their hash says; what another key has taken from them
    is found in a dictionary, by distinct keys.

    Args:
        number_of: gives a new key its number.
    """

    def __init__(self, number_of: Callable[[int], int]) -> None:
        self._number_of = number_of
        self._numbers: dict[int, int] = {}
        self._keys = np.full(SLOTS, -1, np.int64)
        self._values = np.zeros(SLOTS, np.int32)

    def __len__(self) -> int:
        return len(self._numbers)

    def of(self, keys: Int64) -> Int32:
        """Returns the number of each key, int32 ``(n,)``; keys are not negative."""
        slot = ((keys * _MIX) >> 40) & (SLOTS - 1)
        found = self._values[slot]
        missed = np.flatnonzero(self._keys[slot] != keys)
        if len(missed):
            distinct, place = np.unique(keys[missed], return_inverse=True)
            numbers = np.array([self._number(key) for key in distinct.tolist()], np.int32)
            found[missed] = numbers[place]
            self._keys[slot[missed]] = keys[missed]
            self._values[slot[missed]] = found[missed]
        return found

    def places(self) -> tuple[int, int]:
        """Returns where keys and values of the places stand, for the native library."""
        return self._keys.ctypes.data, self._values.ctypes.data

    def _number(self, key: int) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._number_of(key)
            if len(self._numbers) < _MOST_KEYS:
                self._numbers[key] = number
        return number


_MIX: Final = np.int64(-7046029254386353131)  # 2**64 over the golden ratio: spreads neighbours


class Names:
    """Indices into :attr:`strings` for what records say.

    Attributes:
        strings: the texts.
        copies: by CUPTI's copyKind, what a copy is called.
        memset: what a memset is called.
        size_numbers: the text of a grid or block, by its three numbers in one.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begins a new table; indices of the one before mean nothing in it."""
        self.strings = StringTable()
        self.copies = np.zeros(256, np.int32)
        self.copies[:] = [
            self.strings.add(f"Memcpy {COPY_KINDS.get(kind, 'Unknown')}") for kind in range(256)
        ]
        self.memset = self.strings.add("Memset (Device)")
        self._of_said = np.empty(0, np.int32)
        self.size_numbers = Numbers(self._add_size)
        self._graphs: dict[int, int] = {}

    def of(self, said: Sequence[str], index: NDArray[Any]) -> Int32:
        """Returns the place of each text of a batch, demangled if it is mangled, int32 ``(n,)``."""
        of_said = self.said(said)
        found = of_said[index]
        if len(found) and found.min() < 0:
            new: list[int] = np.unique(index[found < 0]).tolist()
            for one in new:
                of_said[one] = self.strings.add(demangled(said[one]))
            found = of_said[index]
        return found

    def said(self, said: Sequence[str]) -> Int32:
        """Returns the place of each text of a batch, -1 where it is not known yet; or longer."""
        if len(self._of_said) < len(said):
            more = np.full(len(said) - len(self._of_said) + 64, -1, np.int32)
            self._of_said = np.concatenate([self._of_said, more])
        return self._of_said

    def sizes(self, size: NDArray[Any]) -> Int32:
        """Returns the text ``"x,y,z"`` of each grid or block, int32 ``(n, 3)`` -> ``(n,)``."""
        wide = size.astype(np.int64)
        # y and z have at most 65,535 blocks (threads: 1,024), so all three fit one integer.
        return self.size_numbers.of(
            (wide[:, 0] & 0x7FFFFFFF) << 32 | (wide[:, 1] & 0xFFFF) << 16 | (wide[:, 2] & 0xFFFF)
        )

    def _add_size(self, key: int) -> int:
        return self.strings.add(f"{key >> 32},{key >> 16 & 0xFFFF},{key & 0xFFFF}")

    def graph(self, graph: int) -> int:
        """Returns the name of a graph that is launched as a whole.

        The ids of executable graphs are a process's own, and so would be any numbering that a
        rank does for itself: one that starts late, or lost a record, counts otherwise. Ranks are
        compared by the family of a name and its place in the step, so the number, which tells
        people the graphs of one process apart, stands where a family leaves it out: in brackets.
        """
        number = self._graphs.setdefault(graph, len(self._graphs) + 1)
        return self.strings.add(f"CUDA graph ({number})")

    def calls(self, name: Int32) -> Int64:
        """Returns what calls do by their names: LAUNCH, SYNC, or HOST_OP for anything else."""
        return _CALLS.of(self.strings, name)

    def kinds(self) -> Int64:
        """Returns what :meth:`calls` knows, by name; per_string.NEW where it knows nothing yet."""
        return _CALLS.values(self.strings)

    def meanings(self) -> Int64:
        """Returns the semantics of kernels by name; per_string.NEW where they are not known yet."""
        return _MEANINGS.values(self.strings)

    def are_collectives(self, name: Int32) -> NDArray[np.bool_]:
        """Whether each is a kernel that works with other ranks, bool ``(n,)``."""
        return _MEANINGS.of(self.strings, name) > 0


def _call(name: str) -> int:
    if _LAUNCH.match(name):
        return SpanKind.LAUNCH
    return SpanKind.SYNC if _WAIT.match(name) else SpanKind.HOST_OP


_CALLS: Final = PerString(_call)
_MEANINGS: Final = PerString(lambda name: int(semantics(name)))
