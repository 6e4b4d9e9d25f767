"""Begins and ends of many spans as packets: columns in, bytes out, no loop over spans.

Protobuf allows numbers to be longer than they need be (Perfetto's own writer pads lengths so),
so all packets of one shape have one size: a shape is a table of bytes that is filled by column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kat_otel.wire import delimited, varint

__all__ = ["Column", "begins", "ends", "shapes_of"]

Int64 = NDArray[np.int64]
UInt8 = NDArray[np.uint8]

_TIME, _TRACK, _NAME, _FLOW = 9, 5, 4, 8
"""Bytes of a padded time (63 bits), track (35), number of a name (28), and of a flow's id."""


@dataclass(frozen=True, slots=True)
class Column:
    """An argument of spans: said where its value is not negative.

    Attributes:
        name: number of its interned name, below 128.
        values: of every span, int64 ``(n,)``.
        is_text: whether the values are numbers of interned texts.
    """

    name: int
    values: Int64
    is_text: bool = False

    @property
    def size(self) -> int:
        """Bytes of a padded value: 28 bits for the number of a text, else all 63."""
        return 4 if self.is_text else 9


def shapes_of(columns: list[Column], flow: Int64) -> Int64:
    """Returns a number for the fields that each span has, int64 ``(n,)``."""
    shape = (flow > 0).astype(np.int64)
    for place, column in enumerate(columns, 1):
        shape |= (column.values >= 0).astype(np.int64) << place
    return shape


def begins(
    shape: int,
    rows: Int64,
    *,
    time: Int64,
    track: Int64,
    name: Int64,
    category: Int64,
    flow: Int64,
    columns: list[Column],
) -> UInt8:
    """Returns the packets that begin the spans in ``rows``, uint8 ``(len(rows), bytes)``.

    Args:
        shape: of all of them, from :func:`shapes_of`.
        rows: int64; rows of the columns that follow.
        time: Unix ns, int64 ``(n,)``.
        track: uuids, int64 ``(n,)``.
        name, category: numbers of interned texts, categories below 128, int64 ``(n,)``.
        flow: ids of arrows, 0 for none, int64 ``(n,)``.
        columns: the arguments.
    """
    mine = [column for place, column in enumerate(columns, 1) if shape >> place & 1]
    form = b"\x48\x01\x58" + bytes(_TRACK) + b"\x50" + bytes(_NAME) + b"\x18\x00"
    places = [(3, _TRACK, track), (4 + _TRACK, _NAME, name), (5 + _TRACK + _NAME, 1, category)]
    flow_at = len(form) + 2
    if shape & 1:
        form += b"\xf9\x02" + bytes(_FLOW)
    for column in mine:
        argument = b"\x08" + varint(column.name) + (b"\x88\x01" if column.is_text else b"\x20")
        argument += bytes(column.size)
        form += delimited(b"\x22", argument)
        places.append((len(form) - column.size, column.size, column.values))
    packets, at = _packets(form, len(rows), time[rows])
    for place, size, values in places:
        _pad(packets, at + place, size, values[rows])
    if shape & 1:
        packets[:, at + flow_at : at + flow_at + _FLOW] = (
            flow[rows].astype("<u8").view(np.uint8).reshape(-1, _FLOW)
        )
    return packets


def ends(rows: Int64, time: Int64, track: Int64) -> UInt8:
    """Returns the packets that end the spans in ``rows``; arguments as of :func:`begins`."""
    packets, at = _packets(b"\x48\x02\x58" + bytes(_TRACK), len(rows), time[rows])
    _pad(packets, at + 3, _TRACK, track[rows])
    return packets


def _packets(form: bytes, count: int, time: Int64) -> tuple[UInt8, int]:
    """Returns ``count`` packets that hold ``form`` as their event, and where it begins."""
    template, at = _template(form)
    packets = np.repeat(np.frombuffer(template, np.uint8)[None, :], count, axis=0)
    _pad(packets, at[0], _TIME, time)
    return packets, at[1]


@lru_cache(maxsize=256)
def _template(form: bytes) -> tuple[bytes, tuple[int, int]]:
    head = b"\x40" + bytes(_TIME) + b"\x50\x01\x68\x02\x5a" + varint(len(form))
    start = b"\x0a" + varint(len(head) + len(form))
    return start + head + form, (len(start) + 1, len(start) + len(head))


def _pad(packets: UInt8, at: int, size: int, values: Int64) -> None:
    """Writes numbers of ``size`` groups of seven bits, all but the last marked as continued."""
    for group in range(size):
        more = 0x80 if group < size - 1 else 0
        packets[:, at + group] = (values >> (7 * group) & 0x7F) | more
