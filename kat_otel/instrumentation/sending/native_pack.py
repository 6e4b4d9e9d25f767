"""Packs spans by the native library, row by row: a fifth of NumPy's time, whatever a step launches.

What spans have in common is spelled here, once, and found again by the library.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import CaptureError
from kat_otel.instrumentation.capture.library import load
from kat_otel.instrumentation.sending.pack import Buffer, Packer, step_attribute
from kat_otel.instrumentation.sending.tails import KEY_OF, NUMBERS, SHARED
from kat_otel.spans import SpanTable, StringTable

__all__ = ["NativePacker", "fastest_packer"]

_TAIL: Final = np.dtype(  # struct kat_tail
    [
        ("thread", "<i8"),
        *((name, "<i4") for name in ("name", "grid", "block", "group", "stream", "graph")),
        *((name, "u1") for name in ("kind", "says_kind", "used", "reserved")),
        *((name, "<u4") for name in ("at", "length")),
    ],
    align=True,
)
_TAIL_FIELDS: Final = _TAIL.names or ()
_SLOTS: Final = 1 << 15
_MOST_TAILS: Final = _SLOTS // 2
_COLUMNS: Final = (
    "span_id", "parent_id", "start_ns", "duration_ns", *NUMBERS,
    "name", "kind", "grid", "block", "group", "stream", "thread", "graph",
)  # fmt: skip
_PACKING: Final = struct.Struct(f"@{1 + 2 * len(_COLUMNS)}q3Pq4P4qPqP")  # struct kat_packing
_KEYS: Final = [np.frombuffer(KEY_OF[name].encode(), np.uint8) for name in NUMBERS]
_NO_ROOM, _NO_TAIL, _TOO_LARGE = 1, 2, 3  # enum kat_stop
_EACH: Final = 320  # bytes of a span, until it is known


class NativePacker(Packer):
    """Packs steps, and keeps the tails of their spans for the next. Used by one thread.

    Args:
        library: the native one.
    """

    def __init__(self, library: Any) -> None:
        super().__init__()
        self._library = library
        self._strings: StringTable | None = None  # whose texts the tails name
        self._tails = np.zeros(_SLOTS, _TAIL)
        self._tail_count = 0
        self._texts = np.empty(1 << 16, np.uint8)
        self._texts_used = 0
        self._each = _EACH

    def _many(
        self, table: SpanTable, rows: NDArray[np.int64], limit: int
    ) -> Sequence[Buffer] | None:
        """Returns the packed rows, in pieces of at most ``limit`` bytes; a larger one alone."""
        if self._strings is not table.strings:
            self._forget()
            self._strings = table.strings
        skipped = np.ones(len(table), np.uint8)
        skipped[rows] = 0
        trace = int(table.trace_hi[0]) << 64 | int(table.trace_lo[0])
        same = np.frombuffer(step_attribute(table), np.uint8)
        own = np.frombuffer(trace.to_bytes(16, "big"), np.uint8)
        row, written, slot = (ctypes.c_int64() for _ in range(3))
        pieces: list[Buffer] = []
        packed, packing, texts = 0, b"", None
        stop, out, at = _NO_ROOM, np.empty(0, np.uint8), 0
        while stop:
            if stop == _NO_ROOM:
                room = min(limit, (len(table) - row.value) * self._each + 4_096)
                out, at = np.empty(room, np.uint8), 0
            if texts is not self._texts:  # else what was said of the step still holds
                texts, packing = self._texts, self._packing(table, skipped, own, same)
            where = out.ctypes.data + at, len(out) - at
            stop = self._library.kat_pack(
                packing, ctypes.byref(row), *where, ctypes.byref(written), ctypes.byref(slot)
            )
            at += written.value
            packed += written.value
            if stop == _NO_TAIL:
                self._spell(table, slot.value)
                continue
            if at:
                pieces.append(out[:at].data)
            if stop == _TOO_LARGE or (stop == _NO_ROOM and not at):
                pieces.append(self.one(table, row.value))
                row.value += 1
                stop = _NO_ROOM
        self._each = max(64, packed // max(1, len(rows)) + 16)
        return pieces

    def _packing(
        self,
        table: SpanTable,
        skipped: NDArray[np.uint8],
        trace: NDArray[np.uint8],
        same: NDArray[np.uint8],
    ) -> bytes:
        columns: list[int] = []
        for name in _COLUMNS:
            column = getattr(table, name)
            columns += (column.ctypes.data, column.strides[0])
        return _PACKING.pack(
            len(table),
            *columns,
            skipped.ctypes.data,
            trace.ctypes.data,
            same.ctypes.data,
            len(same),
            *(key.ctypes.data for key in _KEYS),
            *map(len, _KEYS),
            self._tails.ctypes.data,
            _SLOTS,
            self._texts.ctypes.data,
        )

    def _spell(self, table: SpanTable, slot: int) -> None:
        """Makes the bytes of a tail whose values the library has found new."""
        if self._tail_count >= _MOST_TAILS:
            self._forget()
            return
        one = dict(zip(_TAIL_FIELDS, self._tails[slot].item(), strict=True))
        values = tuple(one[name] for name in SHARED)
        tail = self._layouts.tail(table, values, says_kind=bool(one["says_kind"]))
        at = self._texts_used
        if at + len(tail) > len(self._texts):
            more = np.empty(len(self._texts) + 2 * len(tail), np.uint8)
            self._texts = np.concatenate([self._texts, more])
        self._texts[at : at + len(tail)] = np.frombuffer(tail, np.uint8)
        self._texts_used += len(tail)
        self._tail_count += 1
        self._tails[slot] = tuple({**one, "at": at, "length": len(tail), "used": 1}.values())

    def _forget(self) -> None:
        if self._tail_count:
            self._tails = np.zeros(_SLOTS, _TAIL)
            self._texts = self._texts.copy()  # who looks whether it is the same sees that it is not
        self._tail_count = self._texts_used = 0


def fastest_packer() -> Packer:
    """Returns a packer that uses the native library if it was built, else NumPy's."""
    try:
        return NativePacker(load())
    except CaptureError:  # who wants to capture by CUPTI is told; spans are none the worse
        return Packer()
