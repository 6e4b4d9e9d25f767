"""Cuts the events out of a Chrome trace JSON file while it streams by.

JSON has no record separators, so the ends of events are found structurally: a brace
counts only outside of strings, and the quotes that open and close strings are those not
escaped. All of it is vectorised over a chunk; the text is not decoded here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

__all__ = ["EventRun", "EventScanner", "ScanError", "object_ends"]

MAX_EVENT = 16 * 1024 * 1024
MAX_HEAD = 64 * 1024 * 1024

_SEPARATORS = b", \t\r\n"
_EVENTS_KEY = re.compile(rb'"traceEvents"\s*:\s*\[')


class ScanError(Exception):
    """The bytes are not a Chrome trace; ``offset`` is where that showed."""

    def __init__(self, problem: str, offset: int) -> None:
        super().__init__(problem)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class EventRun:
    """Consecutive whole events.

    Attributes:
        text: ``{...}, {...}``: elements of a JSON array, without its brackets.
        ends: position after each event in ``text``, int64.
        offset: byte of the file at which ``text`` starts.
    """

    text: bytes
    ends: NDArray[np.int64]
    offset: int

    def events(self) -> list[bytes]:
        """Returns the text of every event by itself."""
        starts = [0, *self.ends[:-1].tolist()]
        return [
            self.text[start:end].lstrip(_SEPARATORS)
            for start, end in zip(starts, self.ends.tolist(), strict=True)
        ]


class _State(Enum):
    HEAD = 0
    EVENTS = 1
    TAIL = 2


class EventScanner:
    """Takes the bytes of a file piece by piece and gives back runs of whole events.

    ``frame`` is the file without its events: the head, an empty list, and the tail.
    """

    def __init__(self) -> None:
        self._state = _State.HEAD
        self._pending = b""
        self._frame: list[bytes] = []
        self._frame_size = 0
        self._offset = 0  # of the first pending byte

    @property
    def complete(self) -> bool:
        """Whether the list of events has been closed."""
        return self._state is _State.TAIL

    @property
    def offset(self) -> int:
        """Byte up to which whole events have been given back."""
        return self._offset

    @property
    def frame(self) -> bytes:
        """The JSON text around the events, with ``[]`` in their place."""
        return b"".join(self._frame)

    def feed(self, data: bytes) -> EventRun | None:
        """Adds bytes and returns the events they complete, if any.

        Raises:
            ScanError: no list of events within 64 MiB, or an event larger than 16 MiB.
        """
        if self._state is _State.TAIL:
            self._keep(data)
            return None
        self._pending += data
        if self._state is _State.HEAD and not self._find_events():
            if len(self._pending) > MAX_HEAD:
                raise ScanError("no list of events (traceEvents) found", self._offset)
            return None
        return self._cut()

    def _keep(self, text: bytes) -> None:
        self._frame.append(text)
        self._frame_size += len(text)
        if self._frame_size > MAX_HEAD:
            raise ScanError("too much text around the events", self._offset)

    def _find_events(self) -> bool:
        text = self._pending.lstrip(b" \t\r\n\xef\xbb\xbf")
        blank = len(self._pending) - len(text)
        if text[:1] == b"[":
            start = blank + 1
        elif (found := _top_level_key(self._pending)) is not None:
            start = found
        else:
            return False
        self._keep(self._pending[:start].lstrip(b" \t\r\n\xef\xbb\xbf"))
        self._pending = self._pending[start:]
        self._offset += start
        self._state = _State.EVENTS
        return True

    def _cut(self) -> EventRun | None:
        ends, closed = object_ends(self._pending)
        limit = closed if closed is not None else len(self._pending)
        ends = ends[ends <= limit]
        run = None
        if len(ends):
            last = int(ends[-1])
            text = self._pending[:last].lstrip(_SEPARATORS)
            skipped = last - len(text)
            run = EventRun(text, ends - skipped, self._offset + skipped)
            self._offset += last
            limit -= last
            self._pending = self._pending[last:]
        if closed is not None:
            self._state = _State.TAIL
            tail, self._pending = self._pending[limit:], b""
            self._offset += limit
            self._keep(tail)
        elif len(self._pending) > MAX_EVENT:
            raise ScanError("an event does not end within 16 MiB", self._offset)
        return run


def object_ends(text: bytes) -> tuple[NDArray[np.int64], int | None]:
    """Returns where the elements of a JSON array end, and where the array itself closes.

    Args:
        text: bytes from inside an array, starting between two elements.

    Returns:
        Positions after each whole object or list, int64; and the position of the bracket that
        closes the array, or None if it lies beyond ``text``.
    """
    if b"\\" in text:
        # Same length, so positions stay: pairs first, since "\\\\" escapes nothing after it.
        text = text.replace(b"\\\\", b"..").replace(b'\\"', b"..")
    array = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(array == 0x22)
    folded = array | 0x20  # "[" and "{" differ in this bit only, as do "]" and "}"
    brackets = np.flatnonzero((folded == 0x7B) | (folded == 0x7D))
    brackets = brackets[np.searchsorted(quotes, brackets) & 1 == 0]
    depth = np.cumsum(0x7C - folded[brackets].astype(np.int8), dtype=np.int64)
    below = np.flatnonzero(depth < 0)
    closed = int(brackets[below[0]]) if len(below) else None
    ends = brackets[depth == 0] + 1
    return (ends if closed is None else ends[ends <= closed]), closed


def _top_level_key(text: bytes) -> int | None:
    """Returns the position after ``"traceEvents": [`` at the top level of an object."""
    for match in _EVENTS_KEY.finditer(text):
        before = text[: match.start()]
        before = before.replace(b"\\\\", b"..").replace(b'\\"', b"..")
        array = np.frombuffer(before, np.uint8)
        quotes = np.flatnonzero(array == 0x22)
        if len(quotes) & 1:
            continue  # inside a string
        folded = array | 0x20
        brackets = np.flatnonzero((folded == 0x7B) | (folded == 0x7D))
        brackets = brackets[np.searchsorted(quotes, brackets) & 1 == 0]
        if int(np.sum(0x7C - folded[brackets].astype(np.int64))) == 1:
            return match.end()
    return None
