"""Room on the log's disk that is kept for forgetting: what leaves a full log needs a little first.

LMDB writes changed pages beside the old ones, also to delete. On a disk that the log itself has
filled to the last page nothing could be deleted any more, and the log would stay full for ever.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["HEADROOM", "Headroom"]

HEADROOM: Final = 2 << 20
"""Bytes. Forgetting all of 4 GiB of records changes about 500 pages of 4 KiB."""


class Headroom:
    """A file of :data:`HEADROOM` bytes that makes way when the disk is full.

    Args:
        directory: the log's.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "headroom"
        self.held = False
        self.hold()

    def hold(self) -> None:
        """Takes the room if the disk has it; without, :attr:`held` stays False."""
        if self.held:
            return
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, HEADROOM)
            finally:
                os.close(file)
            self.held = True
        except OSError:  # full, or broken: whoever writes next says so
            self._path.unlink(missing_ok=True)

    def make_way(self) -> bool:
        """Gives the room back to the disk; returns whether there was any."""
        had, self.held = self.held, False
        self._path.unlink(missing_ok=True)
        return had
