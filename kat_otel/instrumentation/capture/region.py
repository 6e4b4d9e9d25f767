"""Reads a worker's region: records as columns, names, marks and messages (records.Source).

In the helper process, or in a thread of the worker. The region is memory that another process
writes: everything in it is checked by ``native/reader.c`` before it is used, and what makes no
sense is counted as ``malformed``.
"""

from __future__ import annotations

import ctypes
import os
import select
import time
from contextlib import suppress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import CaptureError
from kat_otel.instrumentation.capture.halves import HALF, Halves
from kat_otel.instrumentation.capture.library import (
    COLUMNS,
    COUNTERS,
    LONGEST_MESSAGE,
    LONGEST_NAME,
    load,
)
from kat_otel.instrumentation.capture.records import KINDS, STEP, Batch, Loss

__all__ = ["RegionSource"]

_BUFFERS: Final = 128
"""Most buffers a batch: a stalled reader catches up in batches of bounded size."""

_MESSAGES: Final = 16_384
_STEP_MESSAGE: Final = 1
_TEXT_MESSAGE: Final = 2
_WAIT: Final = 0.1
"""Seconds between looks at whether the worker lives."""

_MODES: Final = {"full": 0, "digest": 1, "off": 2}


class RegionSource:
    """What one worker captures, batch by batch.

    Args:
        fd: the region (``Capture.fd``); it may be closed afterwards.

    Raises:
        CaptureError: it is no region of this version, or the native library is missing.
    """

    def __init__(self, fd: int) -> None:
        self._library = load()
        problem = ctypes.create_string_buffer(256)
        self._reader: int | None = self._library.kat_attach(fd, problem)
        if not self._reader:
            raise CaptureError(
                f"no region of a capture: {problem.value.decode(errors='replace')}",
                "worker and helper must run the same version of KAT-OTel",
            )
        self._strings = [""]  # whatever the region says, 0 is that
        self._until_ns = 0
        self._halves = Halves()
        self._had = False  # the last batch held something
        self._text = ctypes.create_string_buffer(LONGEST_NAME)
        self._message = ctypes.create_string_buffer(LONGEST_MESSAGE)
        self._worker = _watch(self._library.kat_reader_pid(self._reader))

    @property
    def names_lost(self) -> int:
        """Names that found no room and read ``(names full)``."""
        return self._counters()[4] if self._reader is not None else 0

    def take(self, timeout: float) -> Batch:
        """Returns what has come; waits at most ``timeout`` seconds if that is nothing.

        Under load there is always something. So that it does not come in crumbs, whose handling
        costs as much as that of a tenth of a second's, one that has just come is given the time
        of the worker's next flush, before which no step can close; a short one if much has come.
        """
        deadline = time.monotonic() + timeout
        if self._reader is None:
            return Batch(strings=self._strings, ended=True)
        if self._had:
            self._library.kat_rest(self._reader, int(1e9 * min(timeout, _WAIT)))
        while True:
            ended = self._ended()  # before the last look: what was said until then is read
            batch, some = self._look(ended=ended)
            self._had = some
            left = deadline - time.monotonic()
            if some or ended or left <= 0:
                return batch
            self._library.kat_wait(self._reader, int(1e9 * min(left, _WAIT)))

    def order(self, mode: str) -> None:
        """Tells capture how much to record from now on: ``full``, ``digest`` or ``off``."""
        if self._reader is not None:
            self._library.kat_reader_order(self._reader, _MODES[mode])

    def close(self) -> None:
        """Unmaps the region."""
        if self._reader:
            self._library.kat_detach(self._reader)
            self._reader = None
        if self._worker is not None:
            os.close(self._worker)
            self._worker = None

    def _ended(self) -> bool:
        if self._library.kat_reader_closed(self._reader):
            return True
        if self._worker is None:
            return False
        return bool(select.select([self._worker], [], [], 0)[0])

    def _look(self, *, ended: bool) -> tuple[Batch, bool]:
        # First: what this time speaks of stands in the queue that is read next.
        flushed_ns = self._counters()[10]
        rows = (ctypes.c_uint64 * COLUMNS)()
        self._library.kat_count_rows(self._reader, _BUFFERS, rows)
        columns = [np.empty(rows[i], dtype) for i, dtype in enumerate((*KINDS.values(), HALF))]
        places = (ctypes.c_void_p * COLUMNS)(*(column.ctypes.data for column in columns))
        self._library.kat_take_rows(self._reader, places, rows)
        columns = [column[: rows[i]] for i, column in enumerate(columns)]
        self._read_names()
        steps, texts = self._messages()
        more = any(map(len, columns)) or len(steps) > 0 or bool(texts)
        named: dict[str, NDArray[Any]] = dict(zip(KINDS, columns, strict=False))
        if len(columns[-1]):
            named["markers"] = np.concatenate((named["markers"], self._halves.join(columns[-1])))
        if not self._library.kat_reader_more(self._reader):  # else some is still to be taken
            self._until_ns = max(self._until_ns, min(flushed_ns, 2**63 - 1))
        counters = self._counters()
        lost, refused, unsaid, malformed = counters[:4]
        batch = Batch(
            strings=self._strings,
            **named,
            steps=steps,
            texts=texts,
            loss=Loss(
                records=lost + counters[COUNTERS] + self._halves.lost,
                buffers=refused,
                messages=unsaid,
                malformed=malformed + counters[COUNTERS + 1],
            ),
            until_ns=self._until_ns,
            busy_ns=counters[9],
            ended=ended and not more,
        )
        return batch, more

    def _counters(self) -> list[int]:
        counters = (ctypes.c_uint64 * (COUNTERS + 2))()
        self._library.kat_reader_counters(self._reader, counters)
        return list(counters)

    def _read_names(self) -> None:
        known = self._library.kat_names_known(self._reader)
        for name in range(len(self._strings), known):
            length = self._library.kat_name(self._reader, name, self._text, LONGEST_NAME)
            self._strings.append(self._text.raw[:length].decode(errors="replace"))

    def _messages(self) -> tuple[NDArray[Any], list[bytes]]:
        marks: list[bytes] = []
        texts: list[bytes] = []
        length = ctypes.c_uint32()
        for _ in range(_MESSAGES):
            kind = self._library.kat_message(self._reader, self._message, ctypes.byref(length))
            if not kind:
                break
            if kind == _STEP_MESSAGE and length.value == STEP.itemsize:
                marks.append(ctypes.string_at(self._message, length.value))
            elif kind == _TEXT_MESSAGE:
                texts.append(ctypes.string_at(self._message, length.value))
        return np.frombuffer(b"".join(marks), STEP), texts


def _watch(pid: int) -> int | None:
    """A descriptor that is readable when the process is gone; None for ourselves."""
    if pid == os.getpid():
        return None
    with suppress(OSError):  # gone already: closed() or the caller's own watch must say so
        return os.pidfd_open(pid)
    return None
