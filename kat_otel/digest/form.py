"""What a digest is: its numbers, its limits and the layout of its bytes.

Fixed columns, so that equal steps have equal layouts and many digests are read as one array.
Little-endian; times are ns. The sections, in this order (``docs/digests.md`` has every byte):

- a header of 140 bytes (:data:`HEADER`): counts, flags, launch gaps, drops, copies;
- ``what`` table, 12 bytes an entry: family, communicator and semantics of a collective;
- class table, 4 bytes a kernel class: its hash;
- ends ``u4``, durations, launch leads ``u2`` and what ``u1`` of the collectives, in launch order;
- times, longest and counts ``u2`` of every kernel class and position (classes x positions).

A ``u2`` holds a number with 11 significant bits (:func:`pack_short`): right to one part in
2,048 from a nanosecond to an hour. What does not fit is merged by the same rule on all ranks
(:mod:`kat_otel.digest.fit`), and the header says what was merged.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COPY_DIRECTIONS",
    "HEADER",
    "MAX_BYTES",
    "MAX_POSITIONS",
    "NO_LEAD",
    "OTHER",
    "VERSION",
    "WHAT",
    "Digest",
    "Int64",
    "class_hash",
    "layout",
    "pack_short",
    "unpack_short",
]

MAX_BYTES: Final = 4_096
VERSION: Final = 1
MAX_POSITIONS: Final = 8
OTHER: Final = 0
"""Hash of the class that takes the kernels of all classes that did not fit."""

COPY_DIRECTIONS: Final = ("HtoD", "DtoH", "DtoD", "PtoP")
"""Order of the copy statistics; what is none of the first three counts as the last."""


NO_LEAD: Final = 0xFFFF
"""A launch lead that is not known, where others are."""

Int64 = NDArray[np.int64]

HEADER: Final = np.dtype(
    [
        ("magic", "<u2"),
        ("version", "u1"),
        ("positions", "u1"),
        ("classes", "u1"),
        ("whats", "u1"),
        ("end_shift", "u1"),
        ("leads", "u1"),
        ("records", "<u2"),
        ("merged", "<u2"),
        ("other_classes", "<u2"),
        ("gap_at", "<u2"),
        ("order", "<u4"),
        ("start_ns", "<i8"),
        ("duration_ns", "<i8"),
        ("resolution_ns", "<u4"),
        ("kernels", "<u4"),
        ("dropped", "<u4"),
        ("launches", "<u4"),
        ("gap_ns", "<i8"),
        ("gap_max_ns", "<i8"),
        ("sync_ns", "<i8"),
        ("blocks", "<i8"),
        ("copies", "<u4", (4,)),
        ("copy_bytes", "<i8", (4,)),
        ("copy_ns", "<u2", (4,)),
    ]
)
WHAT: Final = np.dtype([("family", "<u4"), ("group", "<u4"), ("semantics", "<u4")])


@dataclass(frozen=True, slots=True, eq=False)
class Digest:
    """One rank's step in numbers; ``n`` collectives, ``k`` kernel classes, ``p`` positions.

    Attributes:
        start_ns: start of the worker step, Unix ns.
        duration_ns: of the worker step.
        ends: end of each collective after ``start_ns``, int64 ``(n,)``, in launch order.
        spent: its duration, int64 ``(n,)``. Of merged collectives: of all together.
        lead: time from its launch to its start, int64 ``(n,)``; -1 where not known. Small: the
            rank's host was behind its GPU. Of merged collectives: the first one's.
        what: index into ``whats``, int64 ``(n,)``.
        whats: family, communicator (hashes) and semantics of the collectives, dtype WHAT.
        classes: hashes of the kernel classes, uint32 ``(k,)``, ascending, :data:`OTHER` first.
        time, longest, count: of the kernels of a class between two cuts of the step, int64
            ``(k, p)``; cuts lie at equal numbers of collectives.
        order: hash of the collectives' sequence before merging: equal on ranks that agree.
        resolution_ns: of the clock.
        kernels: kernels in all classes.
        dropped: spans that the worker lost.
        launches: launches in the step.
        gap_ns, gap_max_ns: host time between launches in sum, and the longest.
        gap_at: collectives launched before the longest gap.
        sync_ns: host time spent waiting for the GPU.
        blocks: thread blocks launched: how much work the step is, by which history is kept.
        copies, copy_bytes, copy_ns: by :data:`COPY_DIRECTIONS`, int64 ``(4,)``.
        merged: collectives a record (1: none were merged).
        other_classes: kernel classes merged into OTHER.
        names: what the hashes stand for; not part of the bytes.
    """

    start_ns: int
    duration_ns: int
    ends: Int64
    spent: Int64
    lead: Int64
    what: Int64
    whats: NDArray[Any]
    classes: NDArray[np.uint32]
    time: Int64
    longest: Int64
    count: Int64
    order: int = 0
    resolution_ns: int = 1
    kernels: int = 0
    dropped: int = 0
    launches: int = 0
    gap_ns: int = 0
    gap_max_ns: int = 0
    gap_at: int = 0
    sync_ns: int = 0
    blocks: int = 0
    copies: Int64 = field(default_factory=lambda: np.zeros(4, np.int64))
    copy_bytes: Int64 = field(default_factory=lambda: np.zeros(4, np.int64))
    copy_ns: Int64 = field(default_factory=lambda: np.zeros(4, np.int64))
    merged: int = 1
    other_classes: int = 0
    names: Mapping[int, str] = field(default_factory=dict[int, str])

    @property
    def arrivals(self) -> Int64:
        """Start of each collective after ``start_ns``; of merged ones the latest possible."""
        return self.ends - self.spent


@lru_cache(maxsize=65_536)
def class_hash(family: str) -> int:
    """Returns the 32-bit name of a kernel family or communicator; 0 only for ``""``."""
    return (zlib.crc32(family.encode("utf-8", "surrogatepass")) or 1) if family else 0


def pack_short(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Returns numbers as 11 significant bits and 5 bits of exponent, rounded to the nearest.

    Up to 2,047 they are exact; beyond, right to one part in 2,048; above 73 minutes (in ns)
    they are cut off.
    """
    numbers = np.minimum(np.maximum(values, 0), 2046 << 31).astype(np.int64)
    _, bits = np.frexp(numbers.astype(np.float64))
    exponent = np.maximum(bits.astype(np.int64) - 11, 0)
    mantissa = (numbers + ((1 << exponent) >> 1)) >> exponent
    carried = mantissa > 2047
    mantissa, exponent = np.where(carried, mantissa >> 1, mantissa), exponent + carried
    return (mantissa | exponent << 11).astype(np.uint16)


def unpack_short(values: NDArray[np.uint16]) -> Int64:
    """Returns the numbers that :func:`pack_short` packed."""
    wide = values.astype(np.int64)
    return (wide & 2047) << (wide >> 11)


def layout(*, records: Any, classes: Any, positions: Any, whats: Any, leads: Any) -> Any:
    """Returns how many bytes a digest of such counts has in all; of numbers or of int64 arrays."""
    tables = 12 * whats + 4 * classes
    return HEADER.itemsize + tables + records * (7 + 2 * leads) + 6 * classes * positions
