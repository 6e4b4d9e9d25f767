"""Measured times of a trace in the merged order of its operations, and what explains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import Semantics
from kat_otel.lmdia.observe import Observed, Rows
from kat_otel.lmdia.program import ALL_STREAMS, Floats, Mask, Operation
from kat_otel.spans import SpanKind, SpanTable

__all__ = ["Measured", "OwnTimes", "event_waits", "measure", "own_times"]

_EVENT_REACH_NS = 10_000.0
"""How long after an event GPU work may start and still count as having waited for it."""
_DEFAULT_LATENCY_NS = 6_000.0
_DEFAULT_DISPATCH_NS = 1_000.0
_DEFAULT_SETTLE_NS = 5_000.0


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Times ``(r, n)``, ns after the step's zero; NaN where a rank has no such call or work.

    Attributes:
        launched: when the GPU work was launched; its rank's start if that was before the window.
        start: ``(r,)``, each rank's first call.
    """

    present: Mask
    start: Floats
    call_start: Floats
    call_end: Floats
    gpu_start: Floats
    gpu_end: Floats
    launched: Floats


@dataclass(frozen=True, slots=True, eq=False)
class OwnTimes:
    """The times that :class:`kat_otel.lmdia.program.Program` is made of, ``(r, n)`` ns."""

    gap: Floats
    call: Floats
    latency: Floats
    dispatch: Floats
    own: Floats


def measure(
    table: SpanTable,
    observed: Sequence[Observed],
    places: Sequence[Rows],
    operations: Sequence[Operation],
) -> Measured:
    """Returns the times of every rank's items at their places."""
    shape = (len(observed), len(operations))
    present = np.zeros(shape, np.bool_)
    call_start, call_end, gpu_start, gpu_end = (np.full(shape, np.nan) for _ in range(4))
    rows = np.concatenate([np.concatenate([o.call, o.work]) for o in observed])
    zero = int(table.start_ns[rows[rows >= 0]].min())
    for rank, (items, place) in enumerate(zip(observed, places, strict=True)):
        present[rank, place] = True
        for chosen, begin, end in (
            (items.call, call_start, call_end),
            (items.work, gpu_start, gpu_end),
        ):
            known = chosen >= 0
            begin[rank, place[known]] = table.start_ns[chosen[known]] - zero
            end[rank, place[known]] = table.end_ns[chosen[known]] - zero
    first_call: Floats = np.nanmin(call_start, axis=1, initial=np.inf)
    start: Floats = np.where(
        np.isinf(first_call), np.nanmin(gpu_start, axis=1, initial=np.inf), first_call
    )
    launcher = np.array(
        [op.graph_launch if op.graph_launch >= 0 else i for i, op in enumerate(operations)]
    )
    launched = call_start[:, launcher]
    launched = np.where(np.isnan(launched), start[:, None], launched)
    return Measured(present, start, call_start, call_end, gpu_start, gpu_end, launched)


def event_waits(operations: Sequence[Operation], measured: Measured) -> list[tuple[int, ...]]:
    """Returns the inferred event waits of each operation: earlier places on other streams.

    A wait that one rank shows holds for all, unless another rank's times contradict it.
    """
    streams = np.array([op.stream for op in operations])
    on_gpu = np.array([op.kind.on_gpu for op in operations])
    compute = np.array([op.kind == SpanKind.KERNEL for op in operations])
    main = _most_common(streams[compute])
    before = _stream_ends(operations, measured)
    latency, _ = _typical(measured, before)
    unexplained = measured.gpu_start > np.fmax(
        measured.launched + 3 * latency, before + _EVENT_REACH_NS
    )
    waits: list[tuple[int, ...]] = []
    for i, op in enumerate(operations):
        others = np.flatnonzero(on_gpu[:i] & (streams[:i] != op.stream))
        found: set[int] = set()
        if op.kind.on_gpu and len(others):
            lag = measured.gpu_start[:, i : i + 1] - measured.gpu_end[:, others]
            possible = ~(lag < -_clock_slack(measured)).any(axis=0)
            fits = (lag >= -_clock_slack(measured)) & (lag <= _EVENT_REACH_NS)
            fits &= unexplained[:, i : i + 1] & possible
            nearest = np.where(fits, lag, np.inf)
            ranks = np.flatnonzero(fits.any(axis=1))
            found.update(int(others[k]) for k in nearest[ranks].argmin(axis=1))
            if op.semantics != Semantics.NONE and op.stream != main:
                earlier = others[possible & (streams[others] == main)]
                found.update(int(j) for j in earlier[-1:])
        waits.append(tuple(sorted(found)))
    return waits


def own_times(operations: Sequence[Operation], measured: Measured) -> OwnTimes:
    """Returns the times of a program whose replay gives the measured times back."""
    ranks, count = measured.present.shape
    gap, call = _host_times(measured)
    latency, dispatch, own = (np.zeros((ranks, count)) for _ in range(3))
    before = _stream_ends(operations, measured)
    typical_latency, typical_dispatch = _typical(measured, before)
    settle = _settle(operations, measured)
    for i, op in enumerate(operations):
        if op.kind == SpanKind.SYNC:
            ended = _waited_for(operations, measured, i)
            begin, back = measured.call_start[:, i], measured.call_end[:, i]
            waited = ended > begin
            own[:, i] = np.where(waited, back - ended, np.fmin(settle, back - ended))
            call[:, i] = np.where(waited, np.fmin(settle, back - begin), back - begin)
        elif op.kind.on_gpu:
            start, end, launched = (
                a[:, i] for a in (measured.gpu_start, measured.gpu_end, measured.launched)
            )
            released = before[:, i]
            for j in op.after:
                released = np.fmax(released, measured.gpu_end[:, j])
            by_launch = launched + typical_latency >= released + typical_dispatch
            since_launch, since_release = start - launched, start - released
            latency[:, i] = np.where(
                by_launch, since_launch, np.fmin(typical_latency, since_launch)
            )
            dispatch[:, i] = np.where(
                by_launch, np.fmin(typical_dispatch, since_release), since_release
            )
            together = op.semantics != Semantics.NONE and ranks > 1
            own[:, i] = end - (np.nanmax(start) if together else start)
    return OwnTimes(
        *(
            np.where(measured.present & np.isfinite(a), a, 0.0)
            for a in (gap, call, latency, dispatch, own)
        )
    )


def _clock_slack(measured: Measured) -> float:
    """Returns 1 µs if all times are whole microseconds, else 0: how wrong an order may look."""
    known = measured.gpu_start[np.isfinite(measured.gpu_start)]
    return 1_000.0 if len(known) and not np.any(known % 1_000.0) else 0.0


def _most_common(values: NDArray[np.int64]) -> int:
    if len(values) == 0:
        return ALL_STREAMS
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])


def _stream_ends(operations: Sequence[Operation], measured: Measured) -> Floats:
    """Returns when the work before ended on the same stream, ``(r, n)``; -inf if there was none."""
    ranks = len(measured.present)
    free: dict[int, Floats] = {}
    before = np.full(measured.present.shape, -np.inf)
    for i, op in enumerate(operations):
        if op.kind.on_gpu:
            last = free.get(op.stream, np.full(ranks, -np.inf))
            before[:, i] = last
            free[op.stream] = np.where(measured.present[:, i], measured.gpu_end[:, i], last)
    return before


def _typical(measured: Measured, before: Floats) -> tuple[float, float]:
    """Returns the usual launch latency on an idle stream and the usual pause on a busy one."""
    since_launch = measured.gpu_start - measured.launched
    since_release = measured.gpu_start - before
    idle = since_launch[(before <= measured.launched) & np.isfinite(since_launch)]
    latency = float(np.median(idle)) if len(idle) else _DEFAULT_LATENCY_NS
    queued = (since_launch > 3 * latency) & (since_release < _EVENT_REACH_NS)
    dispatch = float(np.median(since_release[queued])) if queued.any() else _DEFAULT_DISPATCH_NS
    return latency, dispatch


def _waited_for(operations: Sequence[Operation], measured: Measured, sync: int) -> Floats:
    """Returns when the GPU work ended that synchronisation ``sync`` waits for, ``(r,)``."""
    stream = operations[sync].stream
    chosen = [
        i
        for i in range(sync)
        if operations[i].kind.on_gpu and stream in (ALL_STREAMS, operations[i].stream)
    ]
    never = np.full((len(measured.present), 1), -np.inf)
    return np.fmax.reduce(np.concatenate([never, measured.gpu_end[:, chosen]], axis=1), axis=1)


def _settle(operations: Sequence[Operation], measured: Measured) -> float:
    """Returns the usual time from the GPU's end to the return of a call that waited for it."""
    found: list[Floats] = []
    for i, op in enumerate(operations):
        if op.kind == SpanKind.SYNC:
            ended = _waited_for(operations, measured, i)
            waited = ended > measured.call_start[:, i]
            found.append((measured.call_end[:, i] - ended)[waited])
    times = np.concatenate(found) if found else np.empty(0)
    return float(np.median(times)) if len(times) else _DEFAULT_SETTLE_NS


def _host_times(measured: Measured) -> tuple[Floats, Floats]:
    """Returns host gaps and call durations, ``(r, n)``, zero where there is no call."""
    gap, call = np.zeros(measured.present.shape), np.zeros(measured.present.shape)
    for rank in range(len(gap)):
        calls = np.flatnonzero(~np.isnan(measured.call_start[rank]))
        start, end = measured.call_start[rank, calls], measured.call_end[rank, calls]
        gap[rank, calls] = start - np.concatenate([measured.start[rank : rank + 1], end[:-1]])
        call[rank, calls] = end - start
    return gap, call
