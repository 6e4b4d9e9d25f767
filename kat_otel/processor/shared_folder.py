"""Files in a folder that several processors may share: one lock, and files replaced as a whole.

Whoever reads a file sees the old one or the new one, also when the writer was killed half-way. On
a file system without locks (``flock``) two writers in the same instant may pass.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["locked", "replace_file"]

_LOCK_WAIT_S: Final = 2.0
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


@contextmanager
def locked(directory: Path) -> Generator[None]:
    """Holds the directory against the other processors for a moment.

    Raises:
        TimeoutError: somebody holds it for long, a stopped process perhaps.
        OSError: there is no such directory, or no access.
    """
    file = os.open(directory / "states.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        give_up = time.monotonic() + _LOCK_WAIT_S
        while not _try_lock(file):
            if time.monotonic() > give_up:
                raise TimeoutError(
                    errno.ETIMEDOUT, "another processor keeps the directory locked", directory
                )
            time.sleep(0.005)
        yield
    finally:
        os.close(file)


def replace_file(path: Path, parts: Iterable[bytes]) -> None:
    """Puts a file in place of what was there; on return it is on disk.

    Raises:
        OSError: the disk does not take it; what was there stays.
    """
    draft = path.with_name(f"{path.stem}.{secrets.token_hex(4)}.draft")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb", buffering=0) as stream:
            for part in parts:
                _write_all(stream.fileno(), part)
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_all(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:  # a full disk takes part of it first, and says why next time
        left = left[os.write(file, left) :]


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
