"""A step as a program: what each rank does by itself, without the waiting.

A trace says when things happened; a program says what would make them happen. It keeps
the times that a rank owns (host gaps, launch calls, launch latencies, kernel durations,
a collective's transfer) and the dependencies (stream order, event waits, collectives,
host synchronisation). :mod:`kat_otel.lmdia.replay` turns it back into times, so that a
fault put into the program has the consequences it would have had on the machines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import Semantics
from kat_otel.spans import UNKNOWN, Resource, SpanKind

__all__ = ["ALL_STREAMS", "Floats", "HostOperation", "Mask", "Operation", "Program"]

ALL_STREAMS = -1
"""``stream`` of a host synchronisation that waits for the whole device."""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Operation:
    """One place in the program, the same on all ranks that have it.

    Attributes:
        name: kernel, copy or synchronisation call.
        kind: KERNEL, MEMCPY, MEMSET or COLLECTIVE for GPU work; SYNC for a host call that waits
            for the GPU; LAUNCH for a host call without GPU work of its own (a graph launch).
        stream: CUDA stream of GPU work; for SYNC the stream waited for, or ``ALL_STREAMS``.
        call: name of the runtime call; ``""`` if it lies outside the program (launched before
            the window) or if this is a node of a graph (see ``graph_launch``).
        host: range around the call, index into ``Program.host_operations``, or ``UNKNOWN``.
        after: earlier operations on other streams that must have ended (event waits).
        semantics: how a collective's ranks wait for each other. Its group are the ranks that
            have the operation.
        group: name of the communicator; ``""`` if unknown.
        grid, block: launch shape ``"x,y,z"``.
        nbytes: bytes copied or communicated; ``UNKNOWN`` if not said.
        graph_launch: operation (of kind LAUNCH) that launched this graph node, or ``UNKNOWN``.
        graph, graph_node: CUDA graph ids, or ``UNKNOWN``.
        memory_share: share of a kernel's time that memory bandwidth bounds, in [0, 1]; the rest
            goes with the clock. NaN if unknown (programs made from real traces).
    """

    name: str
    kind: SpanKind
    stream: int = UNKNOWN
    call: str = ""
    host: int = UNKNOWN
    after: tuple[int, ...] = ()
    semantics: Semantics = Semantics.NONE
    group: str = ""
    grid: str = ""
    block: str = ""
    nbytes: int = UNKNOWN
    graph_launch: int = UNKNOWN
    graph: int = UNKNOWN
    graph_node: int = UNKNOWN
    memory_share: float = math.nan


@dataclass(frozen=True, slots=True)
class HostOperation:
    """One record_function or NVTX range around calls, in every rank that has one of them.

    Attributes:
        name: of the range.
        parent: the range around it, an earlier index, or ``UNKNOWN``.
        lead_ns, tail_ns: by how much it reaches out before its first and behind its last call.
    """

    name: str
    parent: int = UNKNOWN
    lead_ns: float = 0.0
    tail_ns: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """One step of ``r`` ranks and ``n`` operations in host order. All times are ns, float64.

    Attributes:
        operations: the ``n`` places, in an order that agrees with every rank's host order.
        host_operations: the ranges around the calls, parents before children.
        resources: who the ``r`` ranks are.
        present: bool ``(r, n)``, which rank has which operation.
        start: ``(r,)``, when each rank's host begins, after the step's own zero.
        gap: ``(r, n)``, host time between the previous call's end and this call's start. Negative
            where threads of one rank overlap: they share one host timeline here.
        call: ``(r, n)``, duration of the host call, without what it waits for the GPU.
        latency: ``(r, n)``, from the call's start to the earliest start on an idle stream.
        dispatch: ``(r, n)``, from the end of what the GPU work waits for (stream order, events) to
            its start; negative with programmatic dependent launch.
        own: ``(r, n)``, duration of GPU work; of a collective the transfer, from the last
            arrival to this rank's end; of a SYNC the time from the GPU's end to the return.
        grid: int64 ``(r, n)``, first dimension of the launch shape where ranks have more or less
            to do, 0 where the operation's own shape holds; None if it holds everywhere.
        resolution_ns: of the clock that will read the times.
        notes: where the program came from ("semi-synthetic: ...").
    """

    operations: tuple[Operation, ...]
    host_operations: tuple[HostOperation, ...]
    resources: tuple[Resource, ...]
    present: Mask
    start: Floats
    gap: Floats
    call: Floats
    latency: Floats
    dispatch: Floats
    own: Floats
    grid: NDArray[np.int64] | None = None
    resolution_ns: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.resources), len(self.operations))
        for name in ("present", "gap", "call", "latency", "dispatch", "own"):
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(
                    f"Program.{name} has shape {found}, expected {shape} (ranks, operations)"
                )
        if self.start.shape != shape[:1]:
            raise ValueError(f"Program.start has shape {self.start.shape}, expected {shape[:1]}")

    @property
    def ranks(self) -> int:
        """Number of ranks ``r``."""
        return len(self.resources)

    def __len__(self) -> int:
        return len(self.operations)

    def of_kind(self, *kinds: SpanKind) -> Mask:
        """Returns which operations are of one of ``kinds``, bool ``(n,)``."""
        return np.array([op.kind in kinds for op in self.operations], dtype=np.bool_)

    @property
    def compute(self) -> Mask:
        """Which operations are kernels that compute (no copies, no collectives), bool ``(n,)``."""
        return self.of_kind(SpanKind.KERNEL)

    @property
    def collectives(self) -> Mask:
        """Which operations are collectives, bool ``(n,)``."""
        return self.of_kind(SpanKind.COLLECTIVE)

    def row_of(self, rank: int) -> int:
        """Returns the row of the rank with this number.

        Raises:
            ValueError: no resource of the program has this rank.
        """
        for row, resource in enumerate(self.resources):
            if resource.rank == rank:
                return row
        known = ", ".join(str(r.rank) for r in self.resources)
        raise ValueError(f"the program has no rank {rank}, only {known}")

    def with_times(self, **arrays: Floats) -> Program:
        """Returns the program with some of its times replaced."""
        changes: Mapping[str, Floats] = arrays
        return replace(self, **changes)  # type: ignore[arg-type]
