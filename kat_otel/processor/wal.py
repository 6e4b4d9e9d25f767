"""The write-ahead log: what is acknowledged is on disk first, until it has left for good.

Requests that arrive together are made durable together: the first becomes the leader, writes all
that are queued in one transaction, and hands over to the next. What is settled rides along.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from kat_otel.errors import (
    ConfigError,
    KatError,
    LogFailedError,
    LogFullError,
    LogTooSmallError,
)
from kat_otel.processor.directory_lock import DirectoryLock
from kat_otel.processor.log_store import LogStore, Record, Signal, footprint
from kat_otel.processor.rarely import Rarely

__all__ = ["Record", "WriteAheadLog"]

_MIN_BYTES: Final = 1 << 20
_MAX_GROUP_BYTES: Final = 64 << 20
"""Of requests in one transaction: LMDB holds them in memory once more until it commits."""
_MAX_GROUP_SETTLED: Final = 4_096
_SETTLE_WAIT_S: Final = 0.5
"""How long settled records wait for a transaction that takes them along."""

logger = logging.getLogger(__name__)


class _Entry:
    """A caller that waits: for the leader to have written its record, or to lead itself."""

    __slots__ = ("error", "leads", "record", "size", "wake")

    def __init__(self, record: Record | None, size: int) -> None:
        self.record = record
        self.size = size
        self.leads = False
        self.error: KatError | None = None
        self.wake = threading.Lock()  # taken here, released by another thread: cheaper than Event
        self.wake.acquire()


class WriteAheadLog:
    """Requests on disk, in order. All methods may be called from any thread.

    Args:
        directory: where it lies; made if it is not there, held against other processes.
        max_bytes: size of its file at most.

    Attributes:
        directory: as given.

    Raises:
        ConfigError: the directory is held by another, cannot be used or holds something else.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        if max_bytes < _MIN_BYTES:
            raise ConfigError(f"wal.max_size_mib: {max_bytes:,} bytes is too little for a log")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"wal.directory: {directory} cannot be made: {error.strerror} — give a directory "
                "that this user may write to"
            ) from error
        self.directory = directory
        self._held = DirectoryLock(directory, "wal.directory")
        try:
            self._store = LogStore(directory, max_bytes)
        except BaseException:
            self._held.release()
            raise
        # LMDB copies the pages of its tree that change: settling must find room when full.
        self._limit = max_bytes - max(max_bytes // 16, 128 << 10)
        self._opened_at = self._next_id = self._store.last_id
        self._queue: list[_Entry] = []
        self._queued = 0
        self._settled: set[int] = set()
        self._leading = False
        self._closed = False
        self._rarely = Rarely()
        # Guards all of the above; waited on by the settler.
        self._changed = threading.Condition()
        self._settler = threading.Thread(target=self._settle_late, name="kat-wal", daemon=True)
        self._settler.start()

    def append(self, signal: Signal, data: bytes, received_ns: int) -> int:
        """Returns the request's id once it is on disk.

        Args:
            signal: what it carries.
            data: the request, in protobuf form.
            received_ns: when it came, Unix ns.

        Raises:
            LogTooSmallError: the whole log has not room for it.
            LogFullError: the log or the disk is full; there may be room later.
            LogFailedError: the disk does not take it, or the log is closed.
        """
        size = footprint(len(data))
        if size > self._limit:
            raise LogTooSmallError(
                f"a request of {len(data):,} bytes does not fit into the log ({self._limit:,} "
                "bytes) — send smaller batches, or raise wal.max_size_mib"
            )
        with self._changed:
            used = self._store.size_bytes + self._queued
            if used + size > self._limit:
                raise LogFullError(
                    f"{self.directory}: {used:,} of {self._limit:,} bytes in use, no room for "
                    f"{size:,} — raise wal.max_size_mib, or see why the exporter's endpoint takes "
                    "less than arrives"
                )
            self._next_id += 1
            number = self._next_id
            entry = _Entry(Record(number, signal, data, received_ns), size)
            self._join(entry)
        self._wait(entry)
        return number

    def has_room(self, size: int) -> bool:
        """Returns whether the bound allows a request of ``size`` bytes now.

        One that the log will never take, as it is larger than half of it, counts as half of it:
        that is no state which passes.
        """
        with self._changed:
            used = self._store.size_bytes + self._queued
            return used + min(footprint(size), self._limit // 2) <= self._limit

    def settle(self, ids: Iterable[int]) -> None:
        """Forgets records, within a second. Unknown ids and repetitions do no harm.

        Until then a crash brings them back: what was settled may be worked off once more.
        """
        with self._changed:
            self._settled.update(ids)
            self._changed.notify()

    def pending(self) -> Iterator[Record]:
        """Yields the records that were there when the log was opened, in order, one at a time.

        What is settled in the meantime is left out, and so is what is appended.

        Raises:
            LogFailedError: the file is damaged.
        """
        last = 0
        while (record := self._after(last)) is not None:
            last = record.id
            with self._changed:
                settled = last in self._settled
            if not settled:
                yield record

    def _after(self, last: int) -> Record | None:
        try:
            return self._store.read(last, self._opened_at)
        except LogFailedError:
            # A write that failed may have left it closed; the next one, of nothing, opens it.
            entry = _Entry(None, 0)
            with self._changed:
                self._join(entry)
            self._wait(entry)
            return self._store.read(last, self._opened_at)

    @property
    def limit_bytes(self) -> int:
        """Size at which it refuses."""
        return self._limit

    @property
    def size_bytes(self) -> int:
        """Bytes that the records take on disk; the file keeps what it once had, for reuse."""
        return self._store.size_bytes

    def close(self) -> None:
        """Forgets what is settled and lets go of the directory. No call may be under way."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._settler.join()
        self._store.close()
        self._held.release()

    def _join(self, entry: _Entry) -> None:
        """Queues an entry; under the lock. The first in an empty house leads."""
        if self._closed and entry.record is not None:
            raise LogFailedError(f"{self.directory}: the log is closed — send again later")
        self._queue.append(entry)
        self._queued += entry.size
        if not self._leading:
            self._leading = entry.leads = True

    def _wait(self, entry: _Entry) -> None:
        if not entry.leads:
            entry.wake.acquire()
        if entry.leads:  # from the start, or told so by the leader before
            self._lead()
        if entry.error is not None:
            raise entry.error

    def _lead(self) -> None:
        with self._changed:
            group, size = [self._queue[0]], self._queue[0].size
            for entry in self._queue[1:]:
                if size + entry.size > _MAX_GROUP_BYTES:
                    break
                group.append(entry)
                size += entry.size
            del self._queue[: len(group)]
            settled = list(islice(self._settled, _MAX_GROUP_SETTLED))
        error: KatError | None = LogFailedError(f"{self.directory}: interrupted — send again")
        try:
            error = self._write([e.record for e in group if e.record is not None], settled)
        finally:
            with self._changed:
                self._queued -= size
                if self._queue:
                    self._queue[0].leads = True
                    self._queue[0].wake.release()
                else:
                    self._leading = False
            for entry in group:
                entry.error = error
                entry.wake.release()

    def _write(self, records: list[Record], settled: list[int]) -> KatError | None:
        """Writes a group; returns why its records are not in the log, or None."""
        settled.sort()  # neighbours lie on one page
        error = self._commit(records, settled)
        if error is not None:
            # what is settled makes room, if anything does, but not in the same transaction
            if not (settled and records) or self._commit([], settled) is not None:
                return error
            if isinstance(error, LogFullError):
                error = self._commit(records, [])
        with self._changed:
            self._settled.difference_update(settled)
        return error

    def _commit(self, records: list[Record], settled: list[int]) -> KatError | None:
        """Tries one transaction; returns why it failed, or None."""
        try:
            self._store.write(records, settled, self._next_id)
        except (LogFullError, LogFailedError) as failure:
            return failure
        return None

    def _settle_late(self) -> None:
        """Writes what is settled when no request comes that would take it along."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._settled or self._closed)
                self._changed.wait_for(lambda: self._closed, _SETTLE_WAIT_S)
                if not self._settled:
                    if self._closed:
                        return
                    continue
                entry = _Entry(None, 0)
                self._join(entry)
            try:
                self._wait(entry)
            except (LogFullError, LogFailedError, MemoryError) as error:
                if self._rarely.unsaid("settling") is not None:
                    logger.warning("settled records stay in the log for now: %r", error)
                if self._closed:  # they are worked off once more at the next start
                    return
