"""NVTX ranges of CUPTI come as two records, a begin and an end: they become one."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.capture.records import MARKER

__all__ = ["HALF", "Halves"]

HALF: Final = np.dtype(
    [
        ("time", "<i8"),
        ("thread", "<i8"),
        ("id", "<u4"),
        ("flags", "<u4"),
        ("name", "<u4"),
        ("domain", "<u4"),
    ]
)
"""A row of ``struct marker_row`` in ``native/split.c``."""

_INSTANT: Final = 1  # CUPTI_ACTIVITY_FLAG_MARKER_*
_BEGIN: Final = 2
_END: Final = 4
_OPEN: Final = 65_536


class Halves:
    """Begins that wait for their ends, at most 65,536.

    Attributes:
        lost: halves given up: the oldest begins beyond that bound, and ends without a begin.
    """

    def __init__(self) -> None:
        self._open: NDArray[Any] = np.empty(0, HALF)
        self.lost = 0

    def join(self, halves: NDArray[Any]) -> NDArray[Any]:
        """Returns the ranges (dtype MARKER) that are closed now, and the instants among them."""
        kind = halves["flags"] & (_INSTANT | _BEGIN | _END)
        instants = halves[kind == _INSTANT]
        both = np.concatenate((self._open, halves[(kind == _BEGIN) | (kind == _END)]))
        # An id is one range's; begins come before ends in time.
        both = both[np.lexsort((both["flags"] & _END, both["id"]))]
        begins = (both["flags"] & _BEGIN) != 0
        pair = np.zeros(len(both), bool)
        pair[:-1] = begins[:-1] & ~begins[1:] & (both["id"][:-1] == both["id"][1:])
        ends = np.zeros(len(both), bool)
        ends[1:] = pair[:-1]
        left = both[begins & ~pair]
        self.lost += int(np.count_nonzero(~begins & ~ends))
        if len(left) > _OPEN:
            self.lost += len(left) - _OPEN
            left = left[np.argsort(left["time"], kind="stable")[-_OPEN:]]
        self._open = left
        closed = both[pair]
        return np.concatenate(
            (_ranges(closed, both["time"][ends]), _ranges(instants, instants["time"]))
        )


def _ranges(begins: NDArray[Any], ends: NDArray[Any]) -> NDArray[Any]:
    ranges = np.zeros(len(begins), MARKER)
    ranges["start"] = begins["time"]
    ranges["end"] = np.maximum(begins["time"], ends)
    for field in ("thread", "name", "domain"):
        ranges[field] = begins[field]
    ranges["bytes"] = -1
    ranges["peer"] = -1
    return ranges
