"""Collects the operations of a step in host order, with times from a roofline.

A kernel takes a floor and the longer of what its bytes and its operations take at the GPU's
data-sheet rates, each at :data:`EFFICIENCY`; a collective a floor and its bytes over the link
that they pass. Every duration is of one rank: ranks may have more or less to do.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import semantics
from kat_otel.lmdia.program import Floats, HostOperation, Mask, Operation, Program
from kat_otel.lmdia.tasks.gpus import Gpu
from kat_otel.spans import UNKNOWN, Resource, SpanKind

__all__ = ["COMPUTE", "COPIES", "EFFICIENCY", "GAP_NS", "LAYER_GAP_NS", "OVERLAPPED", "Builder"]

COMPUTE: Final = 7
OVERLAPPED: Final = 20
COPIES: Final = 13
"""Streams: of the model, of work beside it, of copies beside both."""

EFFICIENCY: Final = 0.75
_KERNEL_FLOOR_NS: Final = 2_200.0
_LAUNCH_LATENCY_NS: Final = 6_500.0
_DISPATCH_NS: Final = 900.0
_CALL_NS: Final = 3_600.0
_GRAPH_CALL_NS: Final = 12_000.0
GAP_NS: Final = 2_000.0
LAYER_GAP_NS: Final = 4_000.0
_SETTLE_NS: Final = 5_000.0
_COPY_FLOOR_NS: Final = 1_200.0

Each = float | Floats
"""A number for all ranks, or one for each."""


class Builder:
    """The operations of one step so far.

    Args:
        resources: the ``r`` ranks.
        gpu: whose rates.

    Attributes:
        members: bool ``(r,)``, who has what is added now.
    """

    def __init__(self, resources: tuple[Resource, ...], gpu: Gpu) -> None:
        self.resources = resources
        self.gpu = gpu
        self.members: Mask = np.ones(len(resources), np.bool_)
        self._maker = "hip" if gpu.name == "MI300X" else "cuda"
        self._hosts: list[HostOperation] = []
        self._operations: list[Operation] = []
        self._present: list[Mask] = []
        self._gap: list[float] = []
        self._call: list[float] = []
        self._own: list[Floats] = []
        self._grid: list[NDArray[np.int64]] = []
        self._graph = UNKNOWN
        self._graphs = 0
        self._nodes = 0
        self._stream = COMPUTE

    def __len__(self) -> int:
        return len(self._operations)

    @property
    def last(self) -> int:
        """Index of the operation that was added last."""
        return len(self._operations) - 1

    @contextmanager
    def only(self, members: Mask) -> Generator[None]:
        """Adds to some ranks alone."""
        before, self.members = self.members, self.members & members
        yield
        self.members = before

    @contextmanager
    def graph(self, *, captured: bool) -> Generator[None]:
        """Adds the nodes of one CUDA graph, or plain launches if it is not captured."""
        if not captured or self._graph != UNKNOWN:
            yield
            return
        name = f"{self._maker}GraphLaunch"
        self._add(
            Operation(name, SpanKind.LAUNCH, call=name, host=self._current),
            gap=LAYER_GAP_NS,
            call=_GRAPH_CALL_NS,
        )
        self._graph, self._nodes = self.last, 0
        self._graphs += 1
        yield
        self._graph = UNKNOWN

    @contextmanager
    def beside(self, stream: int) -> Generator[None]:
        """Adds to another stream; what is added is told what to wait for by ``after``."""
        before, self._stream = self._stream, stream
        yield
        self._stream = before

    def host(self, name: str, parent: int = UNKNOWN) -> int:
        """Opens a host operation around the calls that follow."""
        if self._graph == UNKNOWN:  # a graph's nodes have no calls of their own
            self._hosts.append(HostOperation(name, parent, lead_ns=1_000.0, tail_ns=500.0))
        return self._current

    def kernel(
        self,
        name: str,
        *,
        nbytes: Each,
        flop: Each = 0.0,
        bits: int = 16,
        grid: Each = 1.0,
        gap: float = GAP_NS,
        after: tuple[int, ...] = (),
    ) -> None:
        """Adds a kernel that moves ``nbytes`` and makes ``flop`` operations of so many bits.

        ``grid`` is how many blocks it has: what a rank's amount of work shows in its launch.
        """
        rate = {16: self.gpu.flop_16, 8: self.gpu.flop_8, 4: self.gpu.flop_4}[bits]
        memory = np.asarray(nbytes, np.float64) / self.gpu.hbm / EFFICIENCY
        compute = np.asarray(flop, np.float64) / rate / EFFICIENCY
        own = _KERNEL_FLOOR_NS + np.maximum(memory, compute)
        # Near the ridge of the roofline both bound it; the floor goes with the clock.
        bound = float(np.mean(memory**4 / np.maximum(memory**4 + compute**4, 1e-30)))
        share = bound * float(np.mean(np.maximum(memory, compute) / own))
        self._launch(
            Operation(
                name,
                SpanKind.KERNEL,
                self._stream,
                after=after,
                block="256,1,1",
                memory_share=round(share, 3),
            ),
            own,
            gap,
            grid=np.maximum(np.ceil(grid), 1.0),
        )

    def collective(
        self,
        name: str,
        group: str,
        *,
        nbytes: float,
        own: Each,
        gap: float = GAP_NS,
        after: tuple[int, ...] = (),
    ) -> None:
        """Adds a collective of the members, whose transfer takes ``own`` ns."""
        self._launch(
            Operation(
                name,
                SpanKind.COLLECTIVE,
                self._stream,
                after=after,
                semantics=semantics(name),
                group=group,
                grid="36,1,1",
                block="512,1,1",
                nbytes=int(nbytes),
            ),
            own,
            gap,
        )

    def copy(self, way: str, nbytes: float, *, gap: float, after: tuple[int, ...] = ()) -> None:
        """Adds a copy ``HtoD`` or ``DtoH`` between pinned memory and the device."""
        ends = {"HtoD": "(Pinned -> Device)", "DtoH": "(Device -> Pinned)"}
        self._launch(
            Operation(
                f"Memcpy {way} {ends[way]}",
                SpanKind.MEMCPY,
                self._stream,
                after=after,
                nbytes=int(nbytes),
            ),
            _COPY_FLOOR_NS + nbytes / self.gpu.pcie,
            gap,
            call=f"{self._maker}MemcpyAsync",
        )

    def wait(self, stream: int) -> None:
        """Lets the host wait until a stream has done all."""
        name = f"{self._maker}StreamSynchronize"
        self._add(
            Operation(name, SpanKind.SYNC, stream, name, self._current),
            gap=GAP_NS,
            call=_CALL_NS,
            own=_SETTLE_NS,
        )

    def program(self, notes: tuple[str, ...]) -> Program:
        """Returns the step."""
        present: Mask = np.stack(self._present, axis=1)
        shape = present.shape

        def everywhere(values: list[float]) -> Floats:
            return np.where(present, np.array(values), 0.0)

        return Program(
            operations=tuple(self._operations),
            host_operations=tuple(self._hosts),
            resources=self.resources,
            present=present,
            start=np.zeros(len(self.resources)),
            gap=everywhere(self._gap),
            call=everywhere(self._call),
            latency=np.full(shape, _LAUNCH_LATENCY_NS),
            dispatch=np.full(shape, _DISPATCH_NS),
            own=np.where(present, np.stack(self._own, axis=1), 0.0),
            grid=np.where(present, np.stack(self._grid, axis=1), 0),
            notes=notes,
        )

    @property
    def _current(self) -> int:
        return len(self._hosts) - 1

    def _launch(
        self, operation: Operation, own: Each, gap: float, *, call: str = "", grid: Each = 0.0
    ) -> None:
        if self._graph != UNKNOWN:
            node = replace(
                operation, graph_launch=self._graph, graph=self._graphs, graph_node=self._nodes
            )
            self._nodes += 1
            self._add(node, own=own, grid=grid)
            return
        calls = call or f"{self._maker}LaunchKernel"
        launched = replace(operation, call=calls, host=self._current)
        self._add(launched, own=own, gap=gap, call=_CALL_NS, grid=grid)

    def _add(
        self,
        operation: Operation,
        *,
        gap: float = 0.0,
        call: float = 0.0,
        own: Each = 0.0,
        grid: Each = 0.0,
    ) -> None:
        self._operations.append(operation)
        self._present.append(self.members.copy())
        self._gap.append(gap)
        self._call.append(call)
        self._own.append(np.broadcast_to(np.asarray(own, np.float64), self.members.shape))
        self._grid.append(np.broadcast_to(np.asarray(grid, np.int64), self.members.shape))
