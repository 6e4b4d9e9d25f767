"""What is usual: durations of nodes and transfers of meetings over the last healthy steps.

Bounded: the last few signatures, a ring of steps each. A step with an incident is never
remembered, so that a fault does not become the expectation.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kat_otel.ttad.align import Alignment, place
from kat_otel.ttad.features import Features
from kat_otel.ttad.meetings import Meetings

__all__ = ["Expectation", "History"]

Float = NDArray[np.float64]

_MAX_SIGNATURES = 8
"""Distinct step shapes remembered: batch buckets, prefill and decode."""

_MAX_CELLS = 4_000_000
"""Numbers held per signature: 32 MB. A larger node x rank array keeps fewer steps."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """Usual times for the nodes of one step; 0 where unknown.

    Attributes:
        duration: ns ``(N, R)``.
        transfer: of the meeting at each node, ns ``(N,)``.
        spread: of that transfer over the steps, standard deviation in ns ``(N,)``.
        steps: healthy steps behind it.
        trusted: the user gave it as healthy; then any change counts, also one without cost.
    """

    duration: Float
    transfer: Float
    spread: Float
    steps: int
    trusted: bool = False


@dataclass(slots=True)
class _Shape:
    """The remembered steps of one signature."""

    streams: NDArray[np.int32]
    names: list[str]
    ranks: NDArray[np.int32]
    durations: deque[Float]
    transfers: deque[Float]
    cached: tuple[Float, Float, Float] | None = None


class History:
    """Healthy steps of one instance."""

    def __init__(self, steps: int) -> None:
        self._limit = steps
        self._shapes: OrderedDict[tuple[bytes, bytes, bytes], _Shape] = OrderedDict()

    def remember(self, alignment: Alignment, features: Features, met: Meetings) -> None:
        """Adds a healthy step; the least recently used shape is forgotten first."""
        key = (*alignment.signature(), alignment.ranks.tobytes())
        shape = self._shapes.get(key)
        if shape is None:
            size = max(1, min(self._limit, _MAX_CELLS // max(features.duration.size, 1)))
            shape = self._shapes[key] = _Shape(
                alignment.stream,
                alignment.names,
                alignment.ranks,
                deque(maxlen=size),
                deque(maxlen=size),
            )
        self._shapes.move_to_end(key)
        while len(self._shapes) > _MAX_SIGNATURES:
            self._shapes.popitem(last=False)
        shape.durations.append(np.where(features.present, features.duration, 0.0))
        shape.transfers.append(_by_node(met, len(alignment.family)))
        shape.cached = None

    def expect(self, alignment: Alignment, *, mapped: bool = False) -> Expectation | None:
        """Returns what is usual for these nodes, or None where no shape is known.

        Args:
            alignment: of the step in question.
            mapped: a shape that differs may serve, its sequences aligned with these (what has
                no counterpart stays unknown). Only for recordings known to be the same work.
        """
        key = (*alignment.signature(), alignment.ranks.tobytes())
        shape = self._shapes.get(key)
        if shape is not None:
            duration, transfer, spread = _medians(shape)
            return Expectation(duration, transfer, spread, len(shape.durations))
        if not mapped or not self._shapes:
            return None
        shape = next(reversed(self._shapes.values()))
        return _mapped(shape, alignment)


def _by_node(met: Meetings, nodes: int) -> Float:
    transfer = np.zeros(nodes)
    transfer[met.node] = met.transfer
    return transfer


def _medians(shape: _Shape) -> tuple[Float, Float, Float]:
    if shape.cached is None:
        durations = np.median(np.stack(shape.durations), axis=0)
        stack = np.stack(shape.transfers)
        transfers = np.median(stack, axis=0)
        spread = 1.4826 * np.median(np.abs(stack - transfers), axis=0)
        shape.cached = durations, transfers, spread
    return shape.cached


def _mapped(shape: _Shape, alignment: Alignment) -> Expectation | None:
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
    duration, transfer, spread = _medians(shape)
    columns = {int(r): i for i, r in enumerate(shape.ranks)}
    out = np.zeros((len(new), len(alignment.ranks)))
    for column, rank in enumerate(alignment.ranks.tolist()):
        if rank in columns:
            out[known, column] = duration[at[known], columns[rank]]
    moved, spreads = np.zeros(len(new)), np.zeros(len(new))
    moved[known], spreads[known] = transfer[at[known]], spread[at[known]]
    return Expectation(out, moved, spreads, len(shape.durations))
