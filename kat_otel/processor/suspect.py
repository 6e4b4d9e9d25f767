"""Which record of the log a process was taking when it died, so that none can end every start.

An exception ends at its step (see ``defects.py``). What ends the process itself (no memory left, a
crash of a library) leaves only this file behind, which the page cache holds for the next start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
from pathlib import Path
from typing import Final

__all__ = ["Suspect"]

_FORM: Final = struct.Struct("<qq")  # the record's id, and how many starts it has ended before
_MOST: Final = 2

logger = logging.getLogger(__name__)


class Suspect:
    """Asked before each record of the log is taken again; used by the judging thread alone.

    Args:
        directory: of the log.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "recovering"
        self._file: int | None = None
        self._last = (0, 0)
        with contextlib.suppress(OSError, struct.error):
            self._last = _FORM.unpack(self._path.read_bytes())
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:  # without it recovery works as well, until something dies of it
            logger.warning("%s cannot be written: %s", self._path, error.strerror)

    def ended_two_starts(self, record: int) -> bool:
        """Notes that a record is about to be taken; returns whether two processes died of it."""
        last, starts = self._last
        starts = starts + 1 if record == last else 0
        if starts >= _MOST:
            return True
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk: as above
                os.pwrite(self._file, _FORM.pack(record, starts), 0)
        return False

    def close(self) -> None:
        """Forgets: all records were taken, or the rest waits for another start."""
        if self._file is not None:
            os.close(self._file)
            self._path.unlink(missing_ok=True)
            self._file = None
