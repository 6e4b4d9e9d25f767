"""One process a directory: an advisory lock that dies with its holder."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from kat_otel.errors import ConfigError

__all__ = ["DirectoryLock", "holder_of"]


class DirectoryLock:
    """Holds a directory for one user of it, in this process or any other.

    The kernel lets go when the process ends, however it ends: no stale lock needs removing.

    Args:
        directory: which must exist.
        key: the setting that named it, for messages.

    Raises:
        ConfigError: somebody holds it; the message says who.
    """

    def __init__(self, directory: Path, key: str) -> None:
        path = directory / "lock"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"{key}: {path}: {error.strerror} — give a directory that this user may write to"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 200, 0).decode(errors="replace").strip()
            os.close(self._file)
            if not isinstance(error, BlockingIOError):
                raise ConfigError(
                    f"{key}: {path} cannot be locked: {error.strerror} — put the directory on a "
                    "local disk"
                ) from error
            raise ConfigError(
                f"{key}: {directory} is in use by {holder or 'another process'} — stop that one, "
                "or give each processor a directory of its own"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Lets others have the directory."""
        os.close(self._file)


def holder_of(directory: Path) -> str:
    """Returns who holds a directory now, as ``process 7 on HOST``; ``""`` if nobody is seen to."""
    try:
        file = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # nobody ever held it, or it is not this user's to see
        return ""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"
    except OSError:
        return ""
    finally:
        os.close(file)
    return ""
