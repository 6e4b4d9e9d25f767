"""Which step each span belongs to, from the marks that profilers and engines leave.

A mark is a host range that opens a step: ``ProfilerStep#12``, vLLM's ``execute_...``,
SGLang's ``step[...]``. The families are data, tried in order; one family rules a file.
Where nothing marks a step, the whole file is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Marks", "choose_family", "find_marks", "step_at", "step_in_file_name"]

MARK_FAMILIES: tuple[re.Pattern[str], ...] = (
    re.compile(r"ProfilerStep#(\d+)$"),
    re.compile(r"(?:train_|decode_|engine_)?(?:step|iteration|iter)[ _#:=]+(\d+)$", re.IGNORECASE),
    re.compile(r"execute_(?:context|new|\d+)_"),
    re.compile(r"step\["),
    re.compile(r"(?:Scheduler\.)?run_batch$|(?:\w+\.)*execute_model$"),
)
"""Names of marks, the surest first; group 1, if there is one, is the step's number."""

_MAX_STEP = 2**31 - 1
_IN_NAME = re.compile(r"(?:^|[._-])step[._-]?(\d{1,9})(?=[._-]|$)", re.IGNORECASE)

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Marks:
    """Steps of one worker: each runs from its start to the next one's start.

    Attributes:
        start_ns: ascending, int64 ``(k,)``, k at least 1; the first also takes what came before.
        step: number of each, int32 ``(k,)``.
    """

    start_ns: Int64
    step: Int32


def choose_family(names: Iterable[str]) -> re.Pattern[str] | None:
    """Returns the surest family of marks that any of the ``names`` belongs to."""
    known = list(names)
    for family in MARK_FAMILIES:
        if any(family.match(name) for name in known):
            return family
    return None


def find_marks(
    family: re.Pattern[str] | None, names: list[str], start_ns: Int64, default_step: int
) -> Marks:
    """Returns the steps of one worker.

    Marks without a number are counted from 0, alike on all ranks that mark alike. A number seen
    again (several threads mark the same step) opens nothing.

    Args:
        family: from :func:`choose_family`; None makes everything one step.
        names: names of the worker's ranges that match ``family``.
        start_ns: their starts, int64.
        default_step: number of the step if nothing marks any.
    """
    starts: list[int] = []
    steps: list[int] = []
    seen: set[int] = set()
    if family is not None:
        order: list[int] = np.argsort(start_ns, kind="stable").tolist()
        for position in order:
            match = family.match(names[position])
            step = min(int(match[1]), _MAX_STEP) if match and family.groups else len(steps)
            if step not in seen:
                seen.add(step)
                starts.append(int(start_ns[position]))
                steps.append(step)
    if not steps:
        return Marks(np.zeros(1, np.int64), np.array([default_step], np.int32))
    return Marks(np.array(starts, np.int64), np.array(steps, np.int32))


def step_at(marks: Marks, time_ns: Int64) -> Int32:
    """Returns the step at each time, int32 ``(n,)``: the nearest earlier mark, else the first."""
    place = np.searchsorted(marks.start_ns, time_ns, side="right") - 1
    return marks.step[np.maximum(place, 0)]


def step_in_file_name(name: str) -> int | None:
    """Returns the step that a file's name tells (``worker0_step_12.pt.trace.json``), if any."""
    match = _IN_NAME.search(name)
    return min(int(match[1]), _MAX_STEP) if match else None
