"""What leaves when some steps end, and what stays: every record goes one way and is counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.steps.attribution import Attributed
from kat_otel.instrumentation.steps.forms import pick
from kat_otel.instrumentation.steps.marks import Marked
from kat_otel.spans import NO_PARENT, SpanKind

__all__ = ["LATE", "LEAVES", "OUTSIDE_STEPS", "STAYS", "Fates", "Leaving", "choose"]

STAYS, LEAVES, OUTSIDE_STEPS, LATE = 0, 1, 2, 3

LONG_CALL_NS: Final = 50_000
"""A call that launches nothing and does not wait is told if it took longer: an allocation."""

_HOST_OP, _LAUNCH, _SYNC = int(SpanKind.HOST_OP), int(SpanKind.LAUNCH), int(SpanKind.SYNC)

Int64 = NDArray[np.int64]


class Fates:
    """Where the records of each step go.

    Args:
        known: serials of all steps that have begun and have not left.
        ready: those that leave now.
    """

    def __init__(self, known: Iterable[int], ready: Iterable[int]) -> None:
        serials = sorted(known)
        self._first = serials[0] if serials else 0
        span = serials[-1] - self._first + 1 if serials else 0
        # Undecided, outside, older than all; then by serial; newer than all cannot be.
        self._codes = np.full(span + 3, LATE, np.uint8)
        self._codes[:2] = STAYS, OUTSIDE_STEPS
        self._codes[[serial - self._first + 3 for serial in serials]] = STAYS
        leaving = [serial - self._first + 3 for serial in sorted(ready)]
        self._codes[leaving] = LEAVES
        self._places = np.zeros(len(self._codes), np.int64)
        self._places[leaving] = np.arange(len(leaving))

    def places(self, serial: Int64) -> Int64:
        """Returns the place among the steps that leave, in order of their serials, int64 ``(n,)``.

        Args:
            serial: of records that leave.
        """
        return self._places[serial - (self._first - 3)]

    def of(self, serial: Int64) -> NDArray[np.uint8]:
        """Returns STAYS, LEAVES, OUTSIDE_STEPS or LATE for each record, uint8 ``(n,)``."""
        place = np.maximum(serial - self._first, -1) + 3
        place[serial < 0] = serial[serial < 0] + 2  # OUTSIDE is -1, UNDECIDED -2
        return self._codes[np.minimum(place, len(self._codes) - 1)]


@dataclass(frozen=True, slots=True, eq=False)
class Leaving:
    """The records of some steps; each form in order of step, then time.

    Attributes:
        steps: which, in the order of their beginning.
        ranges, calls, waits, work: records of the forms of :mod:`forms`.
        of_range, of_call, of_wait, of_work: place in ``steps`` of each, int64, ascending.
        call_of_wait, call_of_work: position in ``calls`` of the call it comes from, NO_PARENT
            if that is not known, int64.
        left_out: calls that are no spans.
    """

    steps: Sequence[Marked]
    ranges: NDArray[Any]
    calls: NDArray[Any]
    waits: NDArray[Any]
    work: NDArray[Any]
    of_range: Int64
    of_call: Int64
    of_wait: Int64
    of_work: Int64
    call_of_wait: Int64
    call_of_work: Int64
    left_out: int


def choose(
    steps: Sequence[Marked],
    fates: Fates,
    found: Attributed,
    ranges: tuple[NDArray[Any], Int64],
    waits: tuple[NDArray[Any], Int64, Int64],
) -> Leaving:
    """Takes the records of ``steps``.

    Args:
        steps: in order of their serials.
        fates: by which they leave.
        found: calls and GPU work.
        ranges: records in order of time, and the serial of the step of each.
        waits: the same, and the position among all calls of the call that each comes from.
    """
    calls = found.calls
    calls["kind"][found.arrived > 0] = _LAUNCH
    told = calls["kind"] != _HOST_OP
    told |= calls["end"] - calls["start"] > LONG_CALL_NS
    call_rows, of_call, all_calls = _rows(fates, found.of_call, told)
    range_rows, of_range, _ = _rows(fates, ranges[1])
    said_twice = (waits[2] >= 0) & (calls["kind"][waits[2]] == _SYNC) if len(calls) else None
    wait_rows, of_wait, all_waits = _rows(
        fates, waits[1], None if said_twice is None else ~said_twice
    )
    work_rows, of_work, _ = _rows(fates, found.of_work)
    by_start = _by_start(found.work, work_rows, of_work)
    work_rows, of_work = work_rows[by_start], of_work[by_start]
    position = np.full(len(calls) + 1, NO_PARENT, np.int64)  # the last place is NO_PARENT's
    position[call_rows] = np.arange(len(call_rows))
    return Leaving(
        steps,
        pick(ranges[0], range_rows),
        pick(calls, call_rows),
        pick(waits[0], wait_rows),
        pick(found.work, work_rows),
        of_range,
        of_call,
        of_wait,
        of_work,
        position[waits[2][wait_rows]],
        position[found.call_of[work_rows]],
        all_calls - len(call_rows) + all_waits - len(wait_rows),
    )


def _rows(
    fates: Fates, serial: Int64, told: NDArray[np.bool_] | None = None
) -> tuple[Int64, Int64, int]:
    """Returns the rows that leave, the place of the step of each, and how many there were.

    Args:
        fates: of the steps.
        serial: of each record, int64 ``(n,)``.
        told: which of the records are wanted, bool ``(n,)``; None: all.
    """
    mine = fates.of(serial) == LEAVES
    count = int(np.count_nonzero(mine))
    if told is not None:
        mine &= told
    rows = np.flatnonzero(mine)
    place = fates.places(serial[rows])
    if len(rows) and (place[1:] < place[:-1]).any():
        by_step = np.argsort(place, kind="stable")
        rows, place = rows[by_step], place[by_step]
    return rows, place, count


def _by_start(work: NDArray[Any], rows: Int64, place: Int64) -> Int64:
    """Returns the order of GPU work by step and start; equal ones by all they say."""
    start = work["start"][rows]
    if not len(rows):
        return np.empty(0, np.int64)
    low = int(start.min())
    span = int(start.max()) - low + 1
    if span > (1 << 62) // (int(place[-1]) + 1):
        return np.lexsort((start, place))
    key = place * span + (start - low)
    order = np.argsort(key, kind="stable")
    key = key[order]
    if (key[1:] > key[:-1]).all():
        return order
    rest = [work[name][rows] for name in reversed(work.dtype.names or ()) if name != "start"]
    return np.lexsort((*rest, start, place))
