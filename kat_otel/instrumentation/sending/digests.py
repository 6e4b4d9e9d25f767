"""Digests of steps as bytes, by the native library where it is there: a tenth of NumPy's time.

What only Python can do, merging what does not fit and spelling names, is done by
:mod:`kat_otel.digest`; the bytes are the same either way.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any, Final

import numpy as np

from kat_otel.digest import MAX_BYTES, class_hash, digest_of, encode
from kat_otel.digest.make import grid_size, told
from kat_otel.errors import CaptureError
from kat_otel.instrumentation.capture.library import load
from kat_otel.spans import SpanTable, StringTable

__all__ = ["Digests"]

_TEXT: Final = np.dtype(  # struct kat_text
    [
        ("blocks", "<i8"),
        ("family", "<u4"),
        ("hash", "<u4"),
        ("known", "u1"),
        ("semantics", "u1"),
        ("direction", "u1"),
        ("reserved", "u1"),
        ("place", "<u4"),
    ]
)
_NAME, _GRID, _GROUP = 1, 2, 4  # enum kat_known
_MOST_ASKED: Final = 1_024
_COLUMNS: Final = ("kind", "parent", "start_ns", "duration_ns", "name", "grid", "group", "bytes")
_SPANS: Final = struct.Struct(f"<{1 + 2 * len(_COLUMNS)}q")  # struct kat_spans
_MOST: Final = 0xFFFFFFFF


class Digests:
    """Makes digests, and remembers what texts say. Used by one thread.

    Args:
        library: the native one; None: NumPy does all of it.
    """

    def __init__(self, library: Any = None) -> None:
        self._library = library
        self._strings: StringTable | None = None
        self._texts = np.zeros(0, _TEXT)
        self._room = np.empty(0, np.uint8)
        self._digest = np.zeros(MAX_BYTES, np.uint8)
        self._asked = np.zeros((_MOST_ASKED, 2), np.uint32)

    @classmethod
    def fastest(cls) -> Digests:
        """Returns one that uses the native library if it was built."""
        try:
            return cls(load())
        except CaptureError:  # who wants to capture by CUPTI is told; a digest is none the worse
            return cls()

    def of(self, table: SpanTable, resolution_ns: int, lost: int) -> bytes:
        """Returns the digest of one rank's step, at most ``MAX_BYTES``.

        Args:
            table: its spans, worker step in row 0; parents are rows.
            resolution_ns: of the worker's clock.
            lost: records lost in the step, as its worker step says.

        Raises:
            ValueError: no spans.
        """
        length = 0
        if self._library is not None and len(table):
            length = self._native(table, resolution_ns, lost)
        if length:
            return self._digest[:length].tobytes()
        return encode(replace(digest_of(table), dropped=lost, resolution_ns=resolution_ns))

    def _native(self, table: SpanTable, resolution_ns: int, lost: int) -> int:
        """Returns how long the digest in :attr:`_digest` is; 0 if Python must make it."""
        if self._strings is not table.strings:
            self._strings, self._texts = table.strings, np.zeros(0, _TEXT)
        short = len(table.strings) - len(self._texts)
        if short > 0:
            more = np.zeros(short + len(table.strings) // 2, _TEXT)
            self._texts = np.concatenate([self._texts, more])
        room = int(self._library.kat_digest_room(len(table), len(table.strings)))
        if room > len(self._room):
            self._room = np.empty(room + room // 2, np.uint8)
        numbers = [len(table)]
        for name in _COLUMNS:
            column = getattr(table, name)
            numbers += (column.ctypes.data, column.strides[0])
        arguments = (
            _SPANS.pack(*numbers),
            self._texts.ctypes.data,
            len(table.strings),
            min(resolution_ns, _MOST),
            min(lost, _MOST),
            self._room.ctypes.data,
            self._digest.ctypes.data,
            self._asked.ctypes.data,
        )
        while (length := self._library.kat_digest(*arguments)) < 0:
            for index, what in self._asked[:-length].tolist():
                self._tell(table.strings[index], index, what)
        return length

    def _tell(self, text: str, index: int, what: int) -> None:
        """Works out what is asked of a text."""
        one = self._texts[index]
        if what == _NAME:
            one["family"], one["semantics"], one["direction"], _ = told(text)
        elif what == _GRID:
            one["blocks"] = grid_size(text)
        else:
            one["hash"] = class_hash(text)
        one["known"] |= what
