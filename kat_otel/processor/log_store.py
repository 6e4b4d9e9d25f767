"""Requests in an LMDB environment: one durable transaction a call, read back in order.

LMDB writes what it changed beside what was valid, syncs, and then makes one page point to the
new state, which it syncs too: a crash at any moment leaves the last committed state, and there is
no tail to repair. Why LMDB: ``docs/decisions/0004-write-ahead-log.md``.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple

import lmdb

from kat_otel.errors import ConfigError, LogFailedError, LogFullError
from kat_otel.processor.headroom import HEADROOM, Headroom

__all__ = ["LogStore", "Record", "Signal", "footprint"]

Signal = Literal["traces", "logs", "metrics"]

_FORMAT: Final = b"kat-wal/1"
_FORMAT_KEY: Final = b"kat:format"
_LAST_KEY: Final = b"kat:last"
_SIGNALS: Final[tuple[Signal, ...]] = ("traces", "logs", "metrics")
_KEY: Final = struct.Struct(">QH")
"""Record and part. Big-endian, so that the order of bytes is the order of ids."""
_HEADER: Final = struct.Struct("<BQQ")
"""Part 0: signal, time of arrival, length. The bytes are in parts 1 and up."""
_PAGE: Final = 4096
_PART: Final = 256 * _PAGE - 16
"""Bytes of a part: 256 pages with LMDB's header. A record then needs no longer run of free pages
than this, also in a log whose free space is in pieces."""
_SLACK: Final = 1 << 20
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Record(NamedTuple):
    """A request in the log.

    Attributes:
        id: its number; they grow for ever, over restarts too.
        signal: what it carries.
        data: the request, in protobuf form.
        received_ns: when it came, Unix ns.
    """

    id: int
    signal: Signal
    data: bytes
    received_ns: int


def footprint(size: int) -> int:
    """Returns the bytes that a record of ``size`` bytes takes in the log at most."""
    parts, rest = divmod(size, _PART)
    return parts * (_PART + 16) + (rest + 16 + _PAGE - 1) // _PAGE * _PAGE + 256


class LogStore:
    """The file of the log. Calls of :meth:`write` must not overlap; reading may go on beside.

    Args:
        directory: where it lies, held by the caller alone.
        max_bytes: size of the file at most.

    Raises:
        ConfigError: there is something else, a log of another version, or no access.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._file = directory / "data.mdb"
        self._max_bytes = max_bytes
        self._usable = False
        # Of the records that a write did not take, the first: no write has succeeded since.
        self._refused_from: int | None = None
        # Held by who reads, and by the writer while it opens the file anew: what is read must not
        # be unmapped meanwhile.
        self._reading = threading.Lock()
        self._open()
        self._headroom = Headroom(directory)

    def _open(self) -> None:
        kept = self._file.stat().st_size if self._file.exists() else 0
        # A bound set lower than what is there: forgetting takes a little room first.
        size = self._max_bytes if kept <= self._max_bytes else kept + _SLACK
        try:
            self._environment = lmdb.open(
                str(self._directory),
                map_size=size,
                max_dbs=1,
                max_readers=8,
                mode=0o600,
                meminit=False,
            )
            self._stamp()
            self._records = self._environment.open_db(b"records")
            self._measure()
            _sync_directory(self._directory)  # LMDB syncs the file, not that it exists
            self._usable = True
        except (lmdb.Error, OSError) as error:
            raise ConfigError(
                f"wal.directory: {self._file} cannot be opened as a log: {error} — check its owner "
                "and its disk; if it is no log of this kind of machine, give another directory"
            ) from error

    def _stamp(self) -> None:
        self._main = self._environment.open_db(None)
        with self._environment.begin() as transaction:
            found = transaction.get(_FORMAT_KEY)
            empty = not transaction.stat(self._main)["entries"]
        if found is None and empty:
            with self._environment.begin(write=True) as transaction:
                transaction.put(_FORMAT_KEY, _FORMAT)
        elif found != _FORMAT:
            self._environment.close()
            what = "a database of another program" if found is None else f"{found[:40]!r}"
            raise ConfigError(
                f"wal.directory: {self._directory} holds {what}, and this version reads "
                f"{_FORMAT!r} — let the version that wrote it finish its work, or give another "
                "directory"
            )

    def _measure(self) -> None:
        with self._environment.begin() as transaction:
            known = int.from_bytes(transaction.get(_LAST_KEY, b""), "big")
            cursor = transaction.cursor(self._records)
            newest = _KEY.unpack(cursor.key())[0] if cursor.last() else 0
            self.last_id = max(known, newest)
            self.size_bytes = self._size(transaction)

    def _size(self, transaction: lmdb.Transaction[bytes]) -> int:
        stat = transaction.stat(self._records)
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * stat["psize"]

    def write(self, records: Sequence[Record], settled: Iterable[int], last_id: int) -> None:
        """Adds records and forgets settled ones, all or nothing; returns when that is on disk.

        Args:
            records: with ids above all before.
            settled: ids to forget; unknown ones are passed over.
            last_id: highest id ever given, which outlives its record.

        Raises:
            LogFullError: the file may not grow that far, or the disk is full.
            LogFailedError: the disk does not take it.
        """
        try:
            self._try(records, settled, last_id)
        except LogFullError:
            if records:
                self._turn()
                self._try(records, settled, last_id)
            elif self._headroom.make_way():
                self._try(records, settled, last_id)
            else:
                raise
        self._headroom.hold()

    def _try(self, records: Sequence[Record], settled: Iterable[int], last_id: int) -> None:
        with self._told(sum(footprint(len(record.data)) for record in records)):
            try:
                if not self._usable:
                    self._reopen()
                try:
                    self._commit(records, settled, last_id)
                except lmdb.PanicError:  # the page that points to the state could not be written
                    self._reopen()
                    self._commit(records, settled, last_id)
            except (lmdb.Error, LogFailedError):
                if records and self._refused_from is None:
                    self._refused_from = records[0].id
                raise
        self._refused_from = None

    def _reopen(self) -> None:
        """Opens the file anew; if that fails, the next write tries again.

        Raises:
            LogFailedError: it cannot be opened now.
        """
        with self._reading:
            self._usable = False
            self._environment.close()
            try:
                self._open()
            except (ConfigError, OSError) as error:
                raise LogFailedError(f"{self._file}: cannot be opened again: {error}") from error

    @contextmanager
    def _told(self, size: int) -> Generator[None]:
        """Says in our words what LMDB says in its own."""
        try:
            yield
        except lmdb.MapFullError:
            raise LogFullError(
                f"{self._file}: no room within {self._max_bytes:,} bytes — raise wal.max_size_mib, "
                "or see why the exporter's endpoint takes less than arrives"
            ) from None
        except lmdb.Error as error:
            code = getattr(error, "code", 0)
            if code in _FULL or (code == errno.EIO and self._disk_full(max(size, _PAGE))):
                raise LogFullError(
                    f"{self._file}: no space left for {size:,} bytes — make room on the disk"
                ) from error
            raise LogFailedError(
                f"{self._file}: {error} — see the kernel's log for errors of the disk"
            ) from error

    def _commit(self, records: Sequence[Record], settled: Iterable[int], last_id: int) -> None:
        with self._environment.begin(self._records, write=True) as transaction:
            cursor = transaction.cursor()
            if self._refused_from is not None:
                # A write may fail although the disk has all of it: who sent it was told to send
                # again, and nobody would ever settle it.
                found = cursor.set_range(_KEY.pack(self._refused_from, 0))
                while found:
                    cursor.delete()
                    found = bool(cursor.key())
            for settled_id in settled:
                prefix = _KEY.pack(settled_id, 0)[:8]
                found = cursor.set_range(prefix)
                while found and cursor.key()[:8] == prefix:
                    cursor.delete()
                    found = bool(cursor.key())
            cursor.close()
            if records and not self._headroom.held:
                self._leave_room(transaction, records)
            for record in records:
                _put(transaction, record)
            transaction.put(_LAST_KEY, last_id.to_bytes(8, "big"), db=self._main)
            size = self._size(transaction)
        self.size_bytes = size

    def _leave_room(self, transaction: lmdb.Transaction[bytes], records: Sequence[Record]) -> None:
        """Refuses records that would take the room within the file that forgetting them needs.

        Asked only while the disk has none: a file that cannot grow must not fill up.
        """
        info = self._environment.info()
        free = (info["last_pgno"] + 1) * _PAGE - self._size(transaction)
        asked = sum(footprint(len(record.data)) for record in records)
        if asked + HEADROOM > free:
            raise LogFullError(
                f"{self._file}: no space left for {asked:,} bytes — make room on the disk"
            )

    def _turn(self) -> None:
        """Makes room of what was settled last: LMDB reuses pages from two transactions ago."""
        for turn in (b"0", b"1"):
            with self._told(_PAGE), self._environment.begin(write=True) as transaction:
                transaction.put(b"kat:turn", turn)

    def _disk_full(self, size: int) -> bool:
        """Asks the disk: LMDB calls a write that stopped half-way, as at its end, an I/O error."""
        path = self._directory / "probe"
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                at, end = self._file.stat().st_size, self._file.stat().st_size + size
                while at < end:  # a short write is followed by the error that explains it
                    at += os.pwrite(file, bytes(min(end - at, 1 << 20)), at)
                os.fdatasync(file)
            finally:
                os.close(file)
                path.unlink()
        except OSError as error:
            return error.errno in _FULL
        return False

    def read(self, after: int, up_to: int) -> Record | None:
        """Returns the first record with an id above ``after`` and not above ``up_to``.

        Raises:
            LogFailedError: the file is damaged.
        """
        try:
            with (
                self._reading,
                self._environment.begin(self._records, buffers=True) as transaction,
            ):
                cursor = transaction.cursor()
                if not cursor.set_range(_KEY.pack(after + 1, 0)):
                    return None
                number, part = _KEY.unpack(cursor.key())
                if number > up_to:
                    return None
                signal, received, size = _HEADER.unpack(cursor.value())
                data = bytearray()
                while len(data) < size and cursor.next():
                    data += cursor.value()
                    part += 1
                    if _KEY.unpack(cursor.key()) != (number, part):
                        break
                if len(data) != size:
                    raise ValueError(f"record {number} has {len(data):,} of {size:,} bytes")
                return Record(number, _SIGNALS[signal], bytes(data), received)
        except (lmdb.Error, struct.error, ValueError, IndexError) as error:
            raise LogFailedError(
                f"{self._file}: damaged: {error} — see the kernel's log for errors of the disk; "
                "with another wal.directory the processor starts without what lies here"
            ) from error

    def close(self) -> None:
        """Closes the file; everything written is on disk already."""
        self._environment.close()


def _put(transaction: lmdb.Transaction[bytes], record: Record) -> None:
    number, signal, data, received = record
    header = _HEADER.pack(_SIGNALS.index(signal), received, len(data))
    transaction.put(_KEY.pack(number, 0), header, append=True)
    view = memoryview(data)
    for part, begin in enumerate(range(0, len(data), _PART), 1):
        transaction.put(_KEY.pack(number, part), view[begin : begin + _PART], append=True)


def _sync_directory(directory: Path) -> None:
    for path in (directory, directory.parent):
        file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
