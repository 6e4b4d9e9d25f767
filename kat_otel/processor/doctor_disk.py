"""Checks of the disk: the write-ahead log's directory and the one for states."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from kat_otel.config import StateConfig, WalConfig
from kat_otel.errors import ConfigError
from kat_otel.finding import Finding
from kat_otel.processor.directory_lock import DirectoryLock

__all__ = ["check_log", "check_states"]

_SYNCS: Final = 8
_SYNC_BYTES: Final = 256 << 10
_SLOW_S: Final = 0.020
_KEY_PART: Final = 8
"""A key of the log is the record's number in eight bytes, and the part's in two."""


def check_log(config: WalConfig) -> Iterator[Finding]:
    """Yields whether acknowledged spans have a safe place."""
    if config.directory is None:
        yield Finding(
            "log",
            "warn",
            "none: what is acknowledged lies in memory, and a crash loses it",
            "set wal.directory to a directory on a local disk",
        )
        return
    directory = Path(config.directory).expanduser()
    holder = _nearest(directory)
    if not os.access(holder, os.W_OK | os.X_OK):
        yield Finding(
            "log",
            "fail",
            f"{holder} is not writable for this user",
            f"chown it, or set wal.directory to another place than {directory}",
        )
        return
    yield _contents(directory)
    yield _space(directory, holder, config.max_size_mib)
    yield _speed(holder)


def check_states(config: StateConfig) -> Iterator[Finding]:
    """Yields whether what is learnt can be kept, if a place of its own is set."""
    if config.directory is None:
        return
    directory = Path(config.directory).expanduser()
    holder = _nearest(directory)
    if os.access(holder, os.W_OK | os.X_OK):
        yield Finding("states", "ok", f"{directory} is writable")
        return
    remedy = "chown it, mount it writable, or set state.directory to another place"
    yield Finding("states", "fail", f"{holder} is not writable for this user", remedy)


def _nearest(directory: Path) -> Path:
    """Returns the directory, or the nearest above it that exists."""
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent
    return directory


def _contents(directory: Path) -> Finding:
    file = directory / "data.mdb"
    if not file.exists():
        return Finding("log", "ok", f"{directory}: empty, made at the first start")
    size = file.stat().st_size
    try:
        lock = DirectoryLock(directory, "wal.directory")
    except ConfigError as error:
        who = str(error).partition("is in use by ")[2].partition(" — ")[0]
        if who:
            return Finding("log", "ok", f"{directory}: {size:,} bytes, in use by {who}")
        return Finding("log", "fail", str(error), "chown the directory to this user")
    try:
        pending = _pending(directory)
    except Exception as error:  # noqa: BLE001 - lmdb's errors share no base but this
        return Finding(
            "log",
            "fail",
            f"{file} cannot be read: {error}",
            f"move {directory} aside; spans pending in it are lost with it",
        )
    finally:
        lock.release()
    return Finding(
        "log", "ok", f"{directory}: {size:,} bytes, {pending:,} requests pending, taken up at start"
    )


def _pending(directory: Path) -> int:
    import lmdb  # noqa: PLC0415 - an installation that is being examined may lack it

    # Nobody else has it: the lock is held. Not locked by LMDB: nothing may be changed here.
    environment: Any = lmdb.open(str(directory), readonly=True, lock=False, max_dbs=1)
    try:
        with environment.begin() as transaction:
            try:
                records = environment.open_db(b"records", txn=transaction, create=False)
            except lmdb.NotFoundError:
                return 0
            keys = transaction.cursor(records).iternext(keys=True, values=False)
            return sum(1 for key in keys if key[_KEY_PART:] == b"\0\0")
    finally:
        environment.close()


def _space(directory: Path, holder: Path, max_size_mib: int) -> Finding:
    free = shutil.disk_usage(holder).free >> 20
    file = directory / "data.mdb"
    have = file.stat().st_blocks * 512 >> 20 if file.exists() else 0
    detail = f"{free:,} MiB free for a log of up to {max_size_mib:,} MiB"
    if free + have < max_size_mib:
        remedy = "make room, or lower wal.max_size_mib: a full disk stops other programs too"
        return Finding("disk space", "warn", detail, remedy)
    return Finding("disk space", "ok", detail)


def _speed(holder: Path) -> Finding:
    """Times what a small group commit does: write and fdatasync."""
    block = os.urandom(_SYNC_BYTES)
    times: list[float] = []
    try:
        with tempfile.NamedTemporaryFile(dir=holder, prefix=".kat-doctor-") as file:
            for _ in range(_SYNCS):
                begin = time.perf_counter()
                file.write(block)
                file.flush()
                os.fdatasync(file.fileno())
                times.append(time.perf_counter() - begin)
    except OSError as error:
        detail = f"{holder}: writing failed ({error.strerror})"
        return Finding("disk sync", "fail", detail, "make room or mend the disk (dmesg says more)")
    median = statistics.median(times)
    detail = f"256 KiB are on disk after {median * 1e3:.1f} ms"
    if median > _SLOW_S:
        remedy = "put wal.directory on a local SSD: every acknowledgement waits for this"
        return Finding("disk sync", "warn", detail, remedy)
    return Finding("disk sync", "ok", detail)
