"""Ranges that a hook said wait among the others; which step's they are is known, not looked up.

A KV transfer may have begun in an earlier step than the one that it is said with, so its time
does not tell whose it is. What it says beside name and time is kept here, by number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.steps.attribution import UNDECIDED
from kat_otel.instrumentation.steps.forms import RANGE
from kat_otel.instrumentation.steps.host_ranges import HostRanges
from kat_otel.instrumentation.steps.marks import OUTSIDE, Marks
from kat_otel.instrumentation.steps.names import Names
from kat_otel.spans import UNKNOWN

__all__ = ["MOST_SAID", "SaidRanges"]

MOST_SAID: Final = 4_096
"""Ranges that may wait; beyond it new ones are not taken."""

_NUMBERS: Final = 2**31 - 1

Int64 = NDArray[np.int64]


class SaidRanges:
    """What is known of waiting ranges beside their records.

    Attributes:
        attributes: of each, by number.
        dropped: ranges for which there was no room, with the hook or here.
    """

    def __init__(self) -> None:
        self.attributes: dict[int, Mapping[str, str | int]] = {}
        self.dropped = 0
        self._steps: dict[int, tuple[int, int]] = {}  # step and micro-batch
        self._next = 1
        self._hook = 0

    def records(self, said: HostRanges, names: Names) -> NDArray[Any]:
        """Returns what is said as records of RANGE."""
        self.dropped += max(0, said.dropped - self._hook)
        self._hook = max(self._hook, said.dropped)
        taken = said.ranges[: MOST_SAID - len(self._steps)]
        self.dropped += len(said.ranges) - len(taken)
        made = np.zeros(len(taken), RANGE)
        made["bytes"] = made["sequence"] = UNKNOWN
        made["peer"] = -1
        for record, one in zip(made, taken, strict=True):  # a few a step
            record["start"], record["end"], record["thread"] = one.start_ns, one.end_ns, one.thread
            record["name"] = names.strings.add(one.name)
            record["said"] = self._next
            self.attributes[self._next] = one.attributes
            self._steps[self._next] = said.step, said.micro
            self._next = self._next % _NUMBERS + 1
        return made

    def attribute(self, ranges: NDArray[Any], serial: Int64, marks: Marks, until: int) -> None:
        """Sets the step of the ranges that were said, in place.

        Args:
            ranges: of form RANGE.
            serial: of the step of each, as their time says it.
            marks: the steps; of a number that has come twice the latest is meant.
            until: before this (Unix ns) all marks have come.
        """
        if not self._steps:
            return
        known = {(one.step, one.micro): key for key, one in marks.steps.items()}
        gone = 0 if marks.seen else OUTSIDE  # of a serial that is no more: it has left
        for row in np.flatnonzero(ranges["said"]).tolist():
            ended = int(ranges["end"][row]) < until
            of = self._steps[int(ranges["said"][row])]
            serial[row] = known.get(of, self._missed(known, gone) if ended else UNDECIDED)

    def forget(self, ranges: NDArray[Any]) -> None:
        """These have left, or been dropped."""
        if not self._steps:
            return
        for number in ranges["said"][ranges["said"] > 0].tolist():
            del self._steps[number], self.attributes[number]

    def _missed(self, known: Mapping[tuple[int, int], int], gone: int) -> int:
        """Returns the serial of a step that is not there: one older than all, if any has left."""
        return gone if gone < 0 or 0 not in known.values() else OUTSIDE
