"""One run of Chrome trace events as columns: what an event may hold, and how it is decoded.

The fast way decodes a whole run at once into typed records that skip unknown fields. A run
in which some event has fields of other types is decoded event by event, and what even then
makes no sense is counted, never guessed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from kat_otel.readers.scanner import EventRun
from kat_otel.spans import SpanKind

__all__ = ["CATEGORIES", "Args", "Event", "Times", "decode_run", "times_of"]

CATEGORIES: dict[str, SpanKind] = {
    "cpu_op": SpanKind.HOST_OP,
    "python_function": SpanKind.HOST_OP,
    "user_annotation": SpanKind.HOST_OP,
    "cuda_runtime": SpanKind.LAUNCH,
    "cuda_driver": SpanKind.LAUNCH,
    "cuda_sync": SpanKind.SYNC,
    "kernel": SpanKind.KERNEL,
    "gpu_memcpy": SpanKind.MEMCPY,
    "gpu_memset": SpanKind.MEMSET,
    "gpu_user_annotation": SpanKind.OTHER,
    "overhead": SpanKind.OTHER,
    # Kineto before 2022 and ROCm builds
    "Operator": SpanKind.HOST_OP,
    "Runtime": SpanKind.LAUNCH,
    "Kernel": SpanKind.KERNEL,
    "Memcpy": SpanKind.MEMCPY,
    "Memset": SpanKind.MEMSET,
    "hip_runtime": SpanKind.LAUNCH,
    "hip_driver": SpanKind.LAUNCH,
}
"""Kind of a complete event by its category."""

_Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Size = tuple[_Int32, ...] | str | None


class Args(msgspec.Struct, gc=False):
    """What the arguments of an event tell beyond its times."""

    correlation: _Int64 | None = None
    stream: _Int32 | str | None = None
    device: _Int32 | None = None
    bytes: _Int64 | None = None
    grid: _Size = None
    block: _Size = None
    graph: _Int32 | None = msgspec.field(default=None, name="graph id")
    graph_node: _Int64 | None = msgspec.field(default=None, name="graph node id")
    collective: str | None = msgspec.field(default=None, name="Collective name")
    group: str | None = msgspec.field(default=None, name="Process Group Name")
    group_ranks: str | None = msgspec.field(default=None, name="Process Group Ranks")
    elements: _Int64 | None = msgspec.field(default=None, name="In msg nelems")
    dtype: str | None = None
    sequence: _Int64 | None = msgspec.field(default=None, name="Seq")


class Event(msgspec.Struct, gc=False):
    """A Chrome trace event; times in microseconds."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: _Int64 | str | None = None
    tid: _Int64 | str | None = None
    ts: float | None = None
    dur: float | None = None
    args: Args | None = None


class _ExactEvent(Event, gc=False):
    ts: Decimal | None = None  # type: ignore[assignment]


_FAST = msgspec.json.Decoder(list[Event])
_EXACT = msgspec.json.Decoder(list[_ExactEvent])
_INTEGER_FIELDS = (
    "correlation",
    "device",
    "bytes",
    "graph id",
    "graph node id",
    "In msg nelems",
    "Seq",
)
_LARGEST_US = 2**63 / 1000 - 1
_FLOAT_TELLS_NS = 2.0**43
"""Microseconds up to which a float64 still tells single nanoseconds: 101 days after its base."""


@dataclass(frozen=True, slots=True)
class Times:
    """Start and duration of a run's events, ns, int64 ``(n,)``, and which make sense."""

    start: NDArray[np.int64]
    duration: NDArray[np.int64]
    sane: NDArray[np.bool_]
    fractional: bool
    needs_exact: bool


def decode_run(run: EventRun, *, exact: bool = False) -> tuple[list[Event], int]:
    """Returns the events of a run, and how many of them could not be decoded.

    Args:
        run: whole events.
        exact: keep start times as decimals, for those too large for a float64.
    """
    decoder = _EXACT if exact else _FAST
    try:
        return list(decoder.decode(b"[" + run.text + b"]")), 0
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # some event is odd: find out which
    events: list[Event] = []
    lost = 0
    kind = _ExactEvent if exact else Event
    for text in run.events():
        try:
            raw = json.loads(text)
            if isinstance(raw, dict):
                whole = _mend(cast("dict[str, Any]", raw))
                events.append(msgspec.convert(whole, kind, strict=False))
        except (ValueError, RecursionError, msgspec.ValidationError):
            lost += 1
    return events, lost


def _mend(raw: dict[str, Any]) -> dict[str, Any]:
    """Drops arguments of unexpected types: they describe an event, they do not make it wrong."""
    args = raw.get("args")
    if args is None:
        return raw
    try:
        msgspec.convert(args, Args, strict=False)
    except msgspec.ValidationError:
        known = cast("dict[str, Any]", args) if isinstance(args, dict) else {}
        return {**raw, "args": {k: known[k] for k in _INTEGER_FIELDS if _is_integer(known.get(k))}}
    return raw


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and abs(value) < 2**31


def times_of(events: list[Event]) -> Times:
    """Returns the times of events in nanoseconds; microsecond fractions are kept."""
    stamps = [event.ts for event in events]
    duration_us = np.array([event.dur for event in events], dtype=np.float64)
    if any(isinstance(stamp, Decimal) for stamp in stamps[:1]):
        start_us = np.array([np.nan if s is None else float(s) for s in stamps])
        sane = np.abs(start_us) < _LARGEST_US
        start = np.array(
            [
                int(s * 1000) if ok and s is not None else 0
                for s, ok in zip(stamps, sane, strict=True)
            ],
            dtype=np.int64,
        )
        fractional = bool((start % 1000 != 0).any())
        needs_exact = False
    else:
        start_us = np.array(stamps, dtype=np.float64)
        sane = np.abs(start_us) < _LARGEST_US  # false for NaN, which stands for a missing time
        whole = np.floor(np.where(sane, start_us, 0.0))
        rest = np.where(sane, start_us, 0.0) - whole
        start = whole.astype(np.int64) * 1000 + np.rint(rest * 1000).astype(np.int64)
        fractional = bool(rest.any())
        needs_exact = fractional and bool((np.abs(start_us[sane]) >= _FLOAT_TELLS_NS).any())
    good = (duration_us >= 0) & (duration_us < _LARGEST_US)
    length = np.where(good, duration_us, 0.0)
    fractional = fractional or bool((length % 1).any())
    duration = np.rint(length * 1000).astype(np.int64)
    return Times(start, duration, sane & good, fractional, needs_exact)
