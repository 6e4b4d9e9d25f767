"""Causal replay: from a program to the times at which everything happens.

A loop over the operations, vectorised over the ranks. The rules:

- the host of a rank does one call after the other, with its own gaps in between;
- GPU work starts when it has been launched, its stream is free and the events it waits for
  have fired, whichever comes last;
- a collective starts when its rank arrives and ends on each rank a transfer time after the
  **last** rank has arrived: early ranks show a long kernel, which is how lateness looks;
- a host synchronisation returns when the GPU work launched before it has ended.

Not modelled: contention for SMs, memory or links between streams, and a full launch queue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kat_otel.kernels import Semantics
from kat_otel.lmdia.program import ALL_STREAMS, Floats, Mask, Program
from kat_otel.spans import SpanKind

__all__ = ["Times", "simulate"]


@dataclass(frozen=True, slots=True, eq=False)
class Times:
    """When everything happened, ns after the step's zero, float64.

    Attributes:
        begin, end: ``(r,)``, of the worker step: host start to the last end on host or GPU.
        call_start, call_end: ``(r, n)``, of the host call.
        gpu_start, gpu_end: ``(r, n)``, of the GPU work; NaN where there is none.
    """

    begin: Floats
    end: Floats
    call_start: Floats
    call_end: Floats
    gpu_start: Floats
    gpu_end: Floats

    @property
    def step_ns(self) -> float:
        """From the first rank's begin to the last rank's end."""
        return float(self.end.max() - self.begin.min())


def simulate(program: Program) -> Times:
    """Plays the program forward.

    Returns:
        The times of every operation; entries where ``present`` is false are NaN.
    """
    ranks, count = program.present.shape
    shape = (count, ranks)  # one contiguous row per operation
    call_start, call_end = np.full(shape, np.nan), np.full(shape, np.nan)
    gpu_start, gpu_end = np.full(shape, np.nan), np.full(shape, np.nan)
    present: Mask = np.ascontiguousarray(program.present.T)
    gap: Floats = np.where(present, program.gap.T, 0.0)
    call: Floats = np.where(present, program.call.T, 0.0)
    latency: Floats = np.ascontiguousarray(program.latency.T)
    dispatch: Floats = np.ascontiguousarray(program.dispatch.T)
    own: Floats = np.ascontiguousarray(program.own.T)
    whole: Mask = np.all(present, axis=1)
    host: Floats = program.start.copy()
    free: dict[int, Floats] = {}
    idle = np.full(ranks, -np.inf)

    for i, op in enumerate(program.operations):
        begin: Floats = host + gap[i]
        back: Floats = begin + call[i]
        call_start[i] = begin
        if op.kind == SpanKind.SYNC:
            streams = free if op.stream == ALL_STREAMS else (op.stream,)
            for stream in streams:
                settled = free.get(stream, idle) + own[i]
                back = np.where(present[i], np.maximum(back, settled), back)
        elif op.kind.on_gpu:
            launched: Floats = call_start[op.graph_launch] if op.graph_launch >= 0 else begin
            before = free.get(op.stream, idle)
            for j in op.after:
                before = np.fmax(before, gpu_end[j])  # fmax: absent on a rank is no dependency
            ready = np.maximum(launched + latency[i], before + dispatch[i])
            if op.semantics != Semantics.NONE:
                last = float(ready[present[i]].max(initial=-np.inf))
                done = np.maximum(last + own[i], ready)
            else:
                done = ready + own[i]
            gpu_start[i], gpu_end[i] = ready, done
            free[op.stream] = np.where(present[i], done, free.get(op.stream, idle))
        call_end[i] = back
        if not whole[i]:
            for times in (call_start, call_end, gpu_start, gpu_end):
                times[i, ~present[i]] = np.nan
        host = back

    ends: Floats = np.vstack([host[None, :], *free.values()])
    return Times(
        begin=program.start.copy(),
        end=ends.max(axis=0),
        call_start=call_start.T,
        call_end=call_end.T,
        gpu_start=gpu_start.T,
        gpu_end=gpu_end.T,
    )
