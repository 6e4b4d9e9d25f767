"""Which call of NCCL a collective kernel comes from, by the ranges that NCCL leaves on the host.

A range says communicator, bytes and peer. A call of its own launches its kernel within its
range; calls between ncclGroupStart and ncclGroupEnd are launched after the last of them, in
their order. Where the counts do not agree (NCCL joins several into one kernel), the kernel is
told at most the communicator, if it is that of all: nothing is guessed. Kernels of a replayed
graph have no calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.per_string import PerString
from kat_otel.spans import NO_PARENT, UNKNOWN, StringTable

__all__ = ["Calls", "Operation", "Sequences", "match", "operation_of"]

Int64 = NDArray[np.int64]


class Operation(IntEnum):
    """What is communicated; kernels and calls of one operation may belong together."""

    NONE = 0
    ALL_REDUCE = 1
    ALL_GATHER = 2
    REDUCE_SCATTER = 3
    BROADCAST = 4
    REDUCE = 5
    PEERS = 6
    """Sends and receives, and what is made of them."""


_WORDS: Final = (  # in this order: the longer word first
    ("all_?reduce", Operation.ALL_REDUCE),
    ("all_?gather", Operation.ALL_GATHER),
    ("reduce_?scatter", Operation.REDUCE_SCATTER),
    ("broadcast|bcast", Operation.BROADCAST),
    ("send|recv|all_?to_?all|gather|scatter", Operation.PEERS),
    ("reduce", Operation.REDUCE),
)
_PATTERNS: Final = tuple((re.compile(word, re.IGNORECASE), what) for word, what in _WORDS)


def _operation(name: str) -> int:
    return next((what for pattern, what in _PATTERNS if pattern.search(name)), Operation.NONE)


_OPERATIONS: Final = PerString(_operation)


def operation_of(strings: StringTable, name: NDArray[np.int32]) -> Int64:
    """Returns the :class:`Operation` that each name speaks of, int64 ``(n,)``."""
    return _OPERATIONS.of(strings, name)


class Sequences:
    """Counts the calls of each communicator since the start of the process.

    All ranks of a communicator call its collectives alike, so equal numbers are the same
    collective. Sends and receives are each rank's own affair and are not counted.
    """

    def __init__(self) -> None:
        self._called: dict[int, int] = {}

    def number(self, ranges: NDArray[Any]) -> None:
        """Sets ``sequence`` of the collectives among ``ranges``, which are in order of time."""
        operation = ranges["operation"]
        new = np.flatnonzero(
            (operation != Operation.NONE)
            & (operation != Operation.PEERS)
            & (ranges["sequence"] == UNKNOWN)
        )
        groups = ranges["group"][new]
        for group in np.unique(groups).tolist():  # a handful
            mine = new[groups == group]
            first = self._called.get(group, 0)
            ranges["sequence"][mine] = first + np.arange(len(mine))
            self._called[group] = first + len(mine)


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls, or kernels at their launches: where, when and what.

    Attributes:
        lane: a number of step and thread, int64 ``(n,)``.
        start, end: Unix ns, int64 ``(n,)``; of kernels: of the call that launched them.
        operation: Operation, int64 ``(n,)``.
        group: communicator, uint64 ``(n,)``; of kernels: not read.
    """

    lane: Int64
    start: Int64
    end: Int64
    operation: Int64
    group: NDArray[np.uint64]


def match(calls: Calls, kernels: Calls) -> tuple[Int64, Int64]:
    """Finds each kernel's call.

    Returns:
        Position of the call, int64 ``(kernels,)``, NO_PARENT where it is not certain; and of a
        call of the same communicator, where at least that is certain.
    """
    count, kernel_count = len(calls.start), len(kernels.start)
    exact = np.full(kernel_count, NO_PARENT, np.int64)
    alike = exact.copy()
    if not count or not kernel_count:
        return exact, alike
    lane = np.concatenate([calls.lane, kernels.lane])
    time = np.concatenate([calls.start, kernels.start])
    is_kernel = np.arange(count + kernel_count) >= count
    order = np.lexsort((is_kernel, time, lane))
    lane, is_kernel = lane[order], is_kernel[order]
    before = np.maximum.accumulate(np.where(is_kernel, -1, np.arange(len(order))))
    begun = before >= 0  # the call last begun, on the same lane
    begun &= lane[before] == lane
    call = order[before]
    within = is_kernel & begun
    within[within] = calls.end[call[within]] >= time[order[within]]
    kernel, call = order[within] - count, call[within]  # launched while their call ran
    agree = _agree(calls.operation[call], kernels.operation[kernel])
    alike[kernel[agree]] = call[agree]
    held = np.bincount(call, minlength=count)
    agree &= held[call] == 1
    exact[kernel[agree]] = call[agree]
    settled = within.copy()
    settled[~is_kernel] = held[order[~is_kernel]] > 0
    for mine, theirs in _groups(lane, is_kernel, settled, order):  # a few a step
        if len(np.unique(calls.group[mine])) == 1:
            alike[theirs - count] = mine[0]
        operation = kernels.operation[theirs - count]
        if len(mine) == len(theirs) and _agree(calls.operation[mine], operation).all():
            exact[theirs - count] = alike[theirs - count] = mine
    return exact, alike


def _groups(
    lane: Int64, is_kernel: NDArray[np.bool_], settled: NDArray[np.bool_], order: Int64
) -> Iterator[tuple[Int64, Int64]]:
    """Yields calls that launched nothing, and the kernels launched after the last of them.

    Args:
        lane, is_kernel: of calls and kernels in order of time.
        settled: kernels within their call, and such calls.
        order: what stands there.
    """
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (lane[1:] != lane[:-1]) | settled[1:] | settled[:-1]
    begins[1:] |= is_kernel[:-1] & ~is_kernel[1:]
    first = np.flatnonzero(begins)
    kernels = np.add.reduceat(is_kernel.astype(np.int64), first)
    calls = np.diff(np.append(first, len(order))) - kernels
    for block in np.flatnonzero((kernels > 0) & (calls > 0)).tolist():
        low = int(first[block])
        middle = low + int(calls[block])
        yield order[low:middle], order[middle : middle + int(kernels[block])]


def _agree(call: Int64, kernel: Int64) -> NDArray[np.bool_]:
    """Whether kernels may be those of the calls; a kernel of no known operation may be any's."""
    return (call == kernel) | (kernel == Operation.NONE)
