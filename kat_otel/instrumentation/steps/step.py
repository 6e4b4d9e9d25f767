"""One rank's step as it was captured: what the step maker makes and the sender sends."""

from __future__ import annotations

from dataclasses import dataclass

from kat_otel.instrumentation.capture.records import StepFlag
from kat_otel.spans import SpanTable

__all__ = ["Step"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A closed step: its work has ended, or was given up.

    Attributes:
        step: its number, counted alike on all ranks.
        micro: its micro-batch; 0 where there are none.
        flags: what the engine says of it.
        table: its spans; row 0 is the worker step, parents are rows, ids are not set and the
            only resource is a placeholder. Names of kernels are demangled.
        lost: records lost while it ran: the digest and the span say so.
        links: (trace id, span id) in hexadecimal of the requests that it worked for.
        size: bytes of the table's columns, if what they lie in is theirs alone; else 0.
    """

    step: int
    micro: int
    flags: StepFlag
    table: SpanTable
    lost: int = 0
    links: tuple[tuple[str, str], ...] = ()
    size: int = 0
