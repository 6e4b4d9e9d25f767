"""What capture hands over: activity records as columns, and what the worker said meanwhile.

The same columns whatever the CUPTI version, and whatever the source: CUPTI through the shared
region (:mod:`kat_otel.instrumentation.capture.region`), or torch.profiler on machines without a
GPU. Times are Unix nanoseconds, corrected by the source if its clock is another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "API",
    "COPY",
    "EXTERNAL",
    "GRAPH",
    "KERNEL",
    "KINDS",
    "MARKER",
    "OVERHEAD",
    "SET",
    "STEP",
    "SYNC",
    "Batch",
    "Edge",
    "Loss",
    "Source",
    "StepFlag",
]

_GPU: Final = [
    ("start", "<i8"),
    ("end", "<i8"),
    ("correlation", "<i8"),
    ("graph_node", "<i8"),  # CUPTI's graphNodeId; 0: no graph
    ("graph", "<u4"),  # executable graph; 0: none
    ("device", "<i4"),
    ("stream", "<i4"),
]

KERNEL: Final = np.dtype([*_GPU, ("name", "<u4"), ("grid", "<i4", (3,)), ("block", "<i4", (3,))])
"""A kernel; ``name`` is an index into :attr:`Batch.strings`, as it came: mangled or not."""

COPY: Final = np.dtype([*_GPU, ("bytes", "<i8"), ("kind", "u1")])
"""A memcpy; ``kind`` is CUPTI's copyKind (1 HtoD, 2 DtoH, 8 DtoD, 10 PtoP)."""

SET: Final = np.dtype([*_GPU, ("bytes", "<i8")])
"""A memset."""

GRAPH: Final = np.dtype(_GPU)
"""A whole graph launch, where graphs are not traced node by node; ``graph_node`` is 0."""

API: Final = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("correlation", "<i8"),
        ("thread", "<i8"),
        ("name", "<u4"),  # index into strings: "cudaLaunchKernel", without a version suffix
        ("driver", "?"),
    ]
)
"""A call of the runtime or driver API."""

SYNC: Final = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("correlation", "<i8"),
        ("stream", "<i4"),  # -1: none
        ("kind", "u1"),  # CUPTI's: 1 event, 2 stream waits for event, 3 stream, 4 context
    ]
)
"""The host, or a stream, waits."""

MARKER: Final = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),  # equal to start: an instant
        ("thread", "<i8"),
        ("name", "<u4"),  # index into strings
        ("domain", "<u4"),  # index into strings: "NCCL"
        ("group", "<u8"),  # NCCL's communicator hash; 0: not said
        ("bytes", "<i8"),  # of the message; -1: not said
        ("peer", "<i4"),  # of a send or receive; -1: none
    ]
)
"""A closed NVTX range, with what NCCL's payload says."""

EXTERNAL: Final = np.dtype([("correlation", "<i8"), ("id", "<u8"), ("kind", "<u4")])
"""Work of another tool's id (torch's operators, or the step, see the shim)."""

OVERHEAD: Final = np.dtype([("start", "<i8"), ("end", "<i8"), ("kind", "<u4")])
"""What tracing itself cost."""

KINDS: Final[Mapping[str, np.dtype[Any]]] = {
    "kernels": KERNEL,
    "copies": COPY,
    "sets": SET,
    "graphs": GRAPH,
    "apis": API,
    "syncs": SYNC,
    "markers": MARKER,
    "externals": EXTERNAL,
    "overheads": OVERHEAD,
}
"""Fields of :class:`Batch` and the dtype of each."""


class Edge(IntEnum):
    """Which end of a step a mark stands for."""

    BEGIN = 0
    END = 1


class StepFlag(IntFlag):
    """What kind of step the engine says it is."""

    NONE = 0
    DUMMY = 1  # a data-parallel rank without requests runs along
    PREFILL = 2
    DECODE = 4


STEP: Final = np.dtype(
    [
        ("time_ns", "<i8"),  # Unix
        ("thread", "<i8"),  # the operating system's id, as CUPTI's API records have it
        ("step", "<i4"),
        ("micro", "<i2"),  # micro-batch; 0 where there are none
        ("edge", "u1"),  # Edge
        ("flags", "u1"),  # StepFlag
    ]
)
"""A step begins or ends on the thread that launches its work. 24 bytes, as in the region."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What was not recorded, counted since the start of the process; only ever grows.

    Attributes:
        records: that CUPTI itself dropped, or that found no buffer.
        buffers: of records, refused because the pool was empty.
        messages: of the worker, for which the ring had no room.
        malformed: buffers given up because a record in them made no sense.
    """

    records: int = 0
    buffers: int = 0
    messages: int = 0
    malformed: int = 0


def _none(name: str) -> Any:
    return field(default_factory=lambda: np.empty(0, KINDS[name]))


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Everything since the last batch; arrays may be views that last until the next one.

    Attributes:
        strings: every text so far; 0 is ``""``. Only ever grows.
        kernels ... overheads: structured arrays of :data:`KINDS`, in no particular order.
        steps: of dtype STEP, in the order in which they were said.
        texts: JSON messages of the worker: ``{"worker": {...}}``, ``{"links": ...}``.
        loss: so far.
        until_ns: what was launched before this Unix time and has ended has been handed over.
        busy_ns: CPU time that capture took inside the worker process so far.
        ended: the worker process is gone: nothing comes after this batch.
    """

    strings: Sequence[str] = ("",)
    kernels: NDArray[Any] = _none("kernels")
    copies: NDArray[Any] = _none("copies")
    sets: NDArray[Any] = _none("sets")
    graphs: NDArray[Any] = _none("graphs")
    apis: NDArray[Any] = _none("apis")
    syncs: NDArray[Any] = _none("syncs")
    markers: NDArray[Any] = _none("markers")
    externals: NDArray[Any] = _none("externals")
    overheads: NDArray[Any] = _none("overheads")
    steps: NDArray[Any] = field(default_factory=lambda: np.empty(0, STEP))
    texts: Sequence[bytes] = ()
    loss: Loss = Loss()
    until_ns: int = 0
    busy_ns: int = 0
    ended: bool = False

    @property
    def some(self) -> bool:
        """Whether anything is in it: a source that has had more than fits a batch has more."""
        return bool(self.texts) or any(len(getattr(self, name)) for name in (*KINDS, "steps"))


class Source(Protocol):
    """Where batches come from."""

    def take(self, timeout: float) -> Batch:
        """Returns what has come; waits at most ``timeout`` seconds if that is nothing."""
        ...

    def order(self, mode: str) -> None:
        """Tells capture how much to record from now on: ``full``, ``digest`` or ``off``."""
        ...

    def close(self) -> None:
        """Gives back what it holds."""
        ...
