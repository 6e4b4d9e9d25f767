"""Few records in a file of JSON lines that every processor of a folder reads and may change.

A change is made under the folder's lock to what the file holds then, not to what was read before:
two processors never undo each other's. What another has changed is seen a second later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from kat_otel.processor.shared_folder import locked, replace_file

__all__ = ["KeptLines"]

_LOOK_EVERY_S: Final = 1.0
_MAX_BYTES: Final = 32 << 20
"""Of the file; beyond it the oldest records go."""

Record = TypeVar("Record", bound=msgspec.Struct)

logger = logging.getLogger(__name__)


class KeptLines(Generic[Record]):
    """The records of one file; all threads of the processor may ask and change.

    Args:
        path: the file, whose folder is made with the first record; None keeps them in memory only.
        kind: of the records.
        most: how many are kept; beyond it the oldest go.
        mark: counts what happened, by a short name.
    """

    def __init__(
        self, path: Path | None, kind: type[Record], most: int, mark: Callable[[str], None]
    ) -> None:
        self._path = path
        self._decoder = msgspec.json.Decoder(kind)
        self._most = most
        self._mark = mark
        self._records: tuple[Record, ...] = ()
        self._stamp: tuple[int, int, int] | None = None
        self._look_at = 0.0
        self._lock = threading.Lock()  # of reading anew, and of changes
        self.read()

    def read(self) -> tuple[Record, ...]:
        """Returns all records, the oldest first; never waits for a change that is being made."""
        due = self._path is not None and time.monotonic() >= self._look_at
        if due and self._lock.acquire(blocking=False):
            try:
                self._look(self._path)
            finally:
                self._lock.release()
        return self._records

    def change(self, edit: Callable[[tuple[Record, ...]], Sequence[Record]]) -> tuple[Record, ...]:
        """Replaces all records by what ``edit`` makes of them; on disk when this returns.

        Raises:
            OSError: the disk does not take them; all stays as it was.
        """
        with self._lock:
            if self._path is None:
                self._records = tuple(edit(self._records))[-self._most :]
                return self._records
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self._path.parent):
                self._look(self._path, anew=True)
                records, lines = self._bounded(edit(self._records))
                replace_file(self._path, lines)
                self._records, self._stamp = records, _stamp_of(self._path)
            return self._records

    def _bounded(self, records: Sequence[Record]) -> tuple[tuple[Record, ...], list[bytes]]:
        kept = list(records)[-self._most :]
        lines = [msgspec.json.encode(record) + b"\n" for record in kept]
        size, first = 0, len(lines)
        while first > 0 and size + len(lines[first - 1]) <= _MAX_BYTES:
            first -= 1
            size += len(lines[first])
        return tuple(kept[first:]), lines[first:]

    def _look(self, path: Path | None, *, anew: bool = False) -> None:
        """Reads the file if it has changed. What cannot be read leaves what was known."""
        if path is None:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        try:
            stamp = _stamp_of(path)
            # No file: there is none yet, or it was set aside, and what it said before holds.
            if stamp is None or (stamp == self._stamp and not anew):
                return
            data = _read(path)
            # Line by line: what passes through unread must not keep the whole file in memory.
            records = tuple(self._decoder.decode(line) for line in data.splitlines() if line)
        except (msgspec.MsgspecError, ValueError) as error:
            self._set_aside(path, error)
            return
        except OSError as error:
            if anew:
                raise
            self._mark("operators' files unreadable")
            logger.warning("%s cannot be read now, what it said before holds: %s", path, error)
            return
        self._records, self._stamp = records, stamp

    def _set_aside(self, path: Path, why: Exception) -> None:
        bad = path.with_suffix(".bad")
        self._mark("operators' files set aside")
        logger.warning("%s is set aside as %s, what it said before holds: %s", path, bad.name, why)
        try:
            path.replace(bad)
        except OSError as error:  # it is read again, and said again, when somebody changes it
            logger.warning("%s cannot be renamed: %s", path, error)
        self._stamp = None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"more than the {_MAX_BYTES:,} bytes of any file of ours")
    return data


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        said = path.stat()
    except FileNotFoundError:
        return None
    return said.st_mtime_ns, said.st_size, said.st_ino
