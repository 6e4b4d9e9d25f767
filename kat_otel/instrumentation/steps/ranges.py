"""NVTX ranges that are steps: the marks of servers that no engine hook knows, in C++ or else."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.capture.records import STEP, Batch, Edge

__all__ = ["RangeMarks"]

PATIENCE_NS: Final = 10_000_000_000
"""How long the next range is waited for: one is known only when it has ended."""

_NEW, _NONE, _COUNTED = -3, -2, -1
_MAX_STEP: Final = 2**31 - 1


class RangeMarks:
    """Makes marks of the ranges whose names match.

    A step's number is the pattern's first group, if it has one; else steps are counted from 0.

    Args:
        pattern: matched from the beginning of a name.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern)
        self._number_of = np.empty(0, np.int64)  # by index of the text
        self._counted = 0
        self._latest = 0

    def marks(self, batch: Batch) -> NDArray[Any]:
        """Returns the marks of a batch's ranges, dtype STEP, in order of time."""
        markers = batch.markers[batch.markers["end"] > batch.markers["start"]]
        numbers = self._numbers(batch, markers["name"])
        mine = np.flatnonzero(numbers != _NONE)
        mine = mine[np.argsort(markers["start"][mine], kind="stable")]
        markers, numbers = markers[mine], numbers[mine]
        counted = numbers == _COUNTED
        numbers[counted] = self._counted + np.arange(int(counted.sum()))
        self._counted += int(counted.sum())
        marks = np.zeros((len(markers), 2), STEP)
        marks["time_ns"] = np.stack([markers["start"], markers["end"]], axis=1)
        marks["thread"] = markers["thread"][:, None]
        marks["step"] = numbers[:, None] & _MAX_STEP
        marks["edge"] = [Edge.BEGIN, Edge.END]
        marks = marks.reshape(-1)
        self._latest = max(self._latest, int(marks["time_ns"].max(initial=0)))
        return marks[np.lexsort((-marks["edge"].astype(np.int8), marks["time_ns"]))]

    def until(self, until_ns: int) -> int:
        """Returns before which time all ranges have come, where records have by ``until_ns``."""
        return max(min(until_ns, self._latest), until_ns - PATIENCE_NS)

    def _numbers(self, batch: Batch, name: NDArray[Any]) -> NDArray[np.int64]:
        short = len(batch.strings) - len(self._number_of)
        if short > 0:
            self._number_of = np.append(self._number_of, np.full(short + 64, _NEW))
        found = self._number_of[name]
        new: list[int] = np.unique(name[found == _NEW]).tolist()
        for index in new:
            self._number_of[index] = self._number(batch.strings[index])
        return self._number_of[name]

    def _number(self, text: str) -> int:
        match = self._pattern.match(text)
        if match is None:
            return _NONE
        told = match[1] if self._pattern.groups else None
        return min(int(told), _MAX_STEP) if told and told.isdecimal() else _COUNTED
