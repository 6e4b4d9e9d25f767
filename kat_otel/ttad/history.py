"""What is usual: durations of nodes and transfers of meetings over the last healthy steps.

Bounded: the last few signatures, a ring of steps each. A step with an incident is never
remembered, so that a fault does not become the expectation.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import njit
from kat_otel.ttad import loops
from kat_otel.ttad.align import Alignment, place
from kat_otel.ttad.features import Features
from kat_otel.ttad.loops import median
from kat_otel.ttad.meetings import Meetings

__all__ = ["FEW_RANKS", "Expectation", "History", "Key", "Shape"]

Float = NDArray[np.float64]
Key = tuple[bytes, bytes, bytes]
"""Streams, work and ranks of a step: what two steps share if they mean the same work."""

MAX_SIGNATURES = 8
"""Distinct step shapes remembered: batch buckets, prefill and decode."""

FEW_RANKS = 2
"""So many cannot outvote one: each kernel is compared with its history, which is kept in order."""

_MAX_CELLS = 4_000_000
"""Numbers held per signature: 32 MB. A larger node x rank array keeps fewer steps."""


@dataclass(frozen=True)
class Expectation:
    """Usual times for the nodes of one step; 0 where unknown. Worked out as far as asked for.

    Attributes:
        durations: of the remembered steps, ns ``(K, N, R)``.
        transfers: of the meeting at each node, ns ``(K, N)``.
        steps: healthy steps behind it.
        trusted: the user gave it as healthy; then any change counts, also one without cost.
        ordered: the durations of each cell in order, ns ``(N, R, K)``; None if not kept.
    """

    durations: Float
    transfers: Float
    steps: int
    trusted: bool = False
    ordered: Float | None = None

    @cached_property
    def duration(self) -> Float:
        """Median of each node on each rank, ns ``(N, R)``."""
        if self.ordered is not None:
            high = self.ordered[:, :, self.steps // 2]
            return (
                high.copy()
                if self.steps % 2
                else (self.ordered[:, :, self.steps // 2 - 1] + high) / 2
            )
        nodes = np.arange(self.durations.shape[1], dtype=np.int64)
        ranks = range(self.durations.shape[2])
        columns = [self.duration_of(nodes, rank) for rank in ranks]
        return np.stack(columns, axis=1) if columns else np.zeros((len(nodes), 0))

    def duration_of(self, nodes: NDArray[np.int64], rank: int) -> Float:
        """Returns the medians of some nodes on one rank (its column), ns."""
        if "duration" in self.__dict__:  # all of them were asked for before
            return self.duration[nodes, rank]
        return _medians(self.durations, nodes, rank)

    def transfer_of(self, nodes: NDArray[np.int64]) -> Float:
        """Returns the median transfers at some nodes, ns."""
        return _medians(self.transfers[:, :, None], nodes, 0)


@njit("float64[::1](float64[:, :, ::1], int64[::1], int64)", uses=(loops,))
def _medians(steps: Any, nodes: Any, rank: int) -> Any:
    count = steps.shape[0]
    own = np.empty(count)
    result = np.empty(len(nodes))
    for at in range(len(nodes)):
        for step in range(count):
            own[step] = steps[step, nodes[at], rank]
        result[at] = median(own, count)
    return result


@njit("void(float64[:, :, ::1], float64[:, ::1], float64[:, ::1], int64, boolean)")
def _replace(ordered: Any, old: Any, new: Any, held: int, full: bool) -> None:
    """Puts a step's cells among those of ``held`` others, in the place of ``old`` if ``full``."""
    for node in range(new.shape[0]):
        for rank in range(new.shape[1]):
            cell, value = ordered[node, rank], new[node, rank]
            at = held
            if full:
                at = 0
                while at < held - 1 and cell[at] < old[node, rank]:
                    at += 1
            while at > 0 and cell[at - 1] > value:
                cell[at] = cell[at - 1]
                at -= 1
            last = held - 1 if full else held
            while at < last and cell[at + 1] < value:
                cell[at] = cell[at + 1]
                at += 1
            cell[at] = value


@dataclass(slots=True)
class Shape:
    """The remembered steps of one signature: a ring of ``limit`` of them.

    Attributes:
        streams: stream class of each node, int32 ``(N,)``.
        names: kernel family of each node.
        ranks: int32 ``(R,)``, ascending.
        durations: ns ``(limit, N, R)``, 0 where a rank lacks the node.
        transfers: ns ``(limit, N)``, 0 where nothing meets.
    """

    streams: NDArray[np.int32]
    names: list[str]
    ranks: NDArray[np.int32]
    limit: int
    durations: Float
    transfers: Float
    count: int = 0
    """Steps ever remembered; the next goes to ``count % limit``."""
    work: Any = None
    """What its nodes are, as whoever compares them wants it: worked out once."""
    saved: tuple[int, bytes] | None = None
    """Count and bytes when it was last written down: what has not changed costs nothing."""
    _ordered: Float | None = None

    def usual(self) -> Expectation:
        """What its steps say; valid until the next is remembered."""
        held = min(self.count, self.limit)
        durations = self.durations[:held]
        if self._ordered is None and held and len(self.ranks) <= FEW_RANKS:
            self._ordered = np.empty((*durations.shape[1:], self.limit))
            self._ordered[:, :, :held] = np.sort(durations, axis=0).transpose(1, 2, 0)
        return Expectation(durations, self.transfers[:held], held, ordered=self._ordered)

    def add(self, durations: Float, transfers: Float) -> None:
        """Takes a step in place of the oldest; ns ``(N, R)`` and ``(N,)``."""
        oldest, full = self.durations[self.count % self.limit], self.count >= self.limit
        if self._ordered is not None:
            _replace(self._ordered, oldest, durations, min(self.count, self.limit), full)
        oldest[:] = durations
        self.transfers[self.count % self.limit] = transfers
        self.count += 1


class History:
    """Healthy steps of one instance."""

    def __init__(self, steps: int) -> None:
        self._limit = steps
        self._last: tuple[Alignment, tuple[bytes, bytes, bytes]] | None = None
        self._shapes: OrderedDict[Key, Shape] = OrderedDict()

    def shapes(self) -> list[tuple[Key, Shape]]:
        """Returns what is remembered, the least recently used first; arrays are not copied."""
        return list(self._shapes.items())

    def ring(self, nodes: int, ranks: int) -> int:
        """Returns how many steps of a shape are remembered."""
        return max(1, min(self._limit, _MAX_CELLS // max(nodes * ranks, 1)))

    def adopt(self, key: Key, shape: Shape) -> None:
        """Takes a shape that was remembered elsewhere as the most recently used."""
        self._shapes[key] = shape
        self._shapes.move_to_end(key)
        while len(self._shapes) > MAX_SIGNATURES:
            self._shapes.popitem(last=False)

    def _key(self, alignment: Alignment) -> tuple[bytes, bytes, bytes]:
        if self._last is None or self._last[0] is not alignment:  # asked for before and after
            self._last = alignment, (*alignment.signature(), alignment.ranks.tobytes())
        return self._last[1]

    def remember(self, alignment: Alignment, features: Features, met: Meetings) -> None:
        """Adds a healthy step; the least recently used shape is forgotten first."""
        key = self._key(alignment)
        shape = self._shapes.get(key)
        if shape is None:
            nodes, ranks = features.duration.shape
            size = self.ring(nodes, ranks)
            shape = Shape(
                alignment.stream,
                alignment.names,
                alignment.ranks,
                size,
                np.empty((size, nodes, ranks)),  # memory is taken as the steps come
                np.zeros((size, nodes)),
            )
        transfers = np.zeros(len(features.duration))
        transfers[met.node] = met.transfer
        self.add(key, shape, features.duration * features.present, transfers)

    def add(self, key: Key, shape: Shape, durations: Float, transfers: Float) -> None:
        """Adds a healthy step of a known shape; ns ``(N, R)`` and ``(N,)``."""
        self.adopt(key, shape)
        shape.add(durations, transfers)

    def expect(self, alignment: Alignment, *, mapped: bool = False) -> Expectation | None:
        """Returns what is usual for these nodes, or None where no shape is known.

        Args:
            alignment: of the step in question.
            mapped: a shape that differs may serve, its sequences aligned with these (what has
                no counterpart stays unknown). Only for recordings known to be the same work.
        """
        key = self._key(alignment)
        shape = self._shapes.get(key)
        if shape is not None:
            return shape.usual()
        if not mapped or not self._shapes:
            return None
        shape = next(reversed(self._shapes.values()))
        return _mapped(shape, alignment)


def _mapped(shape: Shape, alignment: Alignment) -> Expectation | None:
    names = alignment.names
    tokens = {name: i for i, name in enumerate(dict.fromkeys([*shape.names, *names]))}
    old = np.array([tokens[n] for n in shape.names], np.int32)
    new = np.array([tokens[n] for n in names], np.int32)
    at = np.full(len(new), -1, np.int64)
    for stream in np.unique(alignment.stream):
        theirs = np.flatnonzero(shape.streams == stream)
        mine = np.flatnonzero(alignment.stream == stream)
        spot = place(old[theirs], new[mine])
        at[mine[spot >= 0]] = theirs[spot[spot >= 0]]
    known = at >= 0
    if known.mean() < 0.5:
        return None
    usual = shape.usual()
    columns = {int(r): i for i, r in enumerate(shape.ranks)}
    out = np.zeros((1, len(new), len(alignment.ranks)))
    for column, rank in enumerate(alignment.ranks.tolist()):
        if rank in columns:
            out[0, known, column] = usual.duration_of(at[known], columns[rank])
    moved = np.zeros((1, len(new)))
    moved[0, known] = usual.transfer_of(at[known])
    return Expectation(out, moved, usual.steps)
