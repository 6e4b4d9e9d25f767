"""What was acknowledged is in the log, whatever happens next; what was settled is not."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import pytest

from kat_otel.errors import ConfigError, LogFailedError, LogFullError, LogTooSmallError
from kat_otel.processor import wal
from kat_otel.processor.log_store import LogStore, Record
from kat_otel.processor.wal import WriteAheadLog

MIB = 1 << 20


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settles at once, for tests that wait for it often."""
    monkeypatch.setattr(wal, "_SETTLE_WAIT_S", 0.01)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "wal"


@pytest.fixture
def open_log(directory: Path) -> Iterator[Callable[..., WriteAheadLog]]:
    logs: list[WriteAheadLog] = []

    def opened(max_bytes: int = 16 * MIB) -> WriteAheadLog:
        logs.append(WriteAheadLog(directory, max_bytes))
        return logs[-1]

    yield opened
    for log in logs:
        log.close()


def wait_for(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def fill(log: WriteAheadLog, size: int = 300_000) -> list[int]:
    """Appends until the log is full; small records by eight threads, which share syncs."""

    def work() -> list[int]:
        ids: list[int] = []
        try:
            while True:
                ids.append(log.append("traces", len(ids).to_bytes(4, "big") * (size // 4), 0))
        except LogFullError:
            return ids

    with ThreadPoolExecutor(8 if size <= 20_000 else 1) as pool:
        filled = [pool.submit(work) for _ in range(8 if size <= 20_000 else 1)]
        return sorted(number for future in filled for number in future.result())


# --- what is in it -------------------------------------------------------------------------


def test_records_come_back_as_they_were_and_in_order(open_log) -> None:
    log = open_log(64 * MIB)
    sizes = [0, 1, 17, 2_000, 4_096, 1_048_559, 1_048_560, 1_048_561, 3_000_001]
    sent = [
        Record(0, signal, random.Random(size).randbytes(size), 1_700_000_000_000_000_000 + size)
        for size in sizes
        for signal in ("traces", "logs", "metrics")
    ]
    ids = [log.append(r.signal, r.data, r.received_ns) for r in sent]
    assert ids == sorted(set(ids))
    log.close()
    expected = [r._replace(id=i) for r, i in zip(sent, ids, strict=True)]
    assert list(open_log().pending()) == expected


def test_settled_records_are_gone_at_once_when_the_log_is_closed(open_log) -> None:
    log = open_log()
    ids = [log.append("traces", bytes(10), 0) for _ in range(10)]
    log.settle(ids[1::2])
    log.settle(ids[1::2])  # again, and ids that never were
    log.settle([10_000_000, 2**63])
    log.close()
    assert [r.id for r in open_log().pending()] == ids[::2]


def test_settled_records_are_gone_within_a_second_without_another_request(open_log) -> None:
    log = open_log()
    ids = [log.append("traces", bytes(100_000), 0) for _ in range(3)]
    used = log.size_bytes
    begun = time.monotonic()
    log.settle(ids)
    wait_for(lambda: log.size_bytes < used)
    assert time.monotonic() - begun < 2.0
    assert log.size_bytes == 0


def test_ids_grow_over_restarts_even_if_nothing_was_left(open_log) -> None:
    log = open_log()
    first = log.append("traces", b"x", 0)
    log.settle([first])
    log.close()
    log = open_log()
    second = log.append("traces", b"x", 0)
    log.close()
    assert first < second < open_log().append("traces", b"x", 0)


def test_pending_is_what_was_there_at_opening_also_while_more_comes(open_log) -> None:
    log = open_log()
    ids = [log.append("traces", b"old", 0) for _ in range(5)]
    log.close()
    log = open_log()
    seen: list[int] = []
    for record in log.pending():
        seen.append(record.id)
        log.append("traces", b"new", 0)
        if record.id == ids[1]:
            log.settle([ids[3]])
    assert seen == [ids[0], ids[1], ids[2], ids[4]]


def test_requests_of_many_threads_share_transactions(open_log, monkeypatch) -> None:
    log = open_log()
    groups: list[int] = []
    entered, go_on = threading.Event(), threading.Event()
    write = LogStore.write

    def slow(self, records, settled, last_id):
        groups.append(len(records))
        entered.set()
        assert go_on.wait(20)
        write(self, records, settled, last_id)

    monkeypatch.setattr(LogStore, "write", slow)
    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(log.append, "traces", b"0", 0)
        assert entered.wait(20)
        rest = [pool.submit(log.append, "traces", b"1", 0) for _ in range(15)]
        wait_for(lambda: len(log._queue) == 15)
        assert not first.done()  # it is not on disk yet
        go_on.set()
        ids = {first.result(20), *(f.result(20) for f in rest)}
    assert groups == [1, 15]
    assert len(ids) == 16


# --- its bounds ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "bound"), [(2_000, MIB), (5_000, MIB), (300_000, 8 * MIB), (900_000, 8 * MIB)]
)
def test_the_file_never_exceeds_its_bound_and_space_comes_back(
    open_log, quick, directory, size, bound
) -> None:
    log = open_log(bound)
    ids = fill(log, size)
    for _ in range(2):
        log.settle(ids)
        wait_for(lambda: log.size_bytes == 0)
        again = fill(log, size)
        assert len(again) >= 0.9 * len(ids)
        ids = again
    assert (directory / "data.mdb").stat().st_size <= bound
    assert len(ids) * size > 0.45 * bound  # small ones pay for half-filled pages


def test_room_is_found_in_pieces(open_log, quick) -> None:
    """Every other of many small records is settled: what is free is nowhere in one piece."""
    log = open_log(4 * MIB)
    ids = fill(log, 20_000)
    log.settle(ids[::2])
    wait_for(lambda: log.size_bytes < 2.5 * MIB)
    assert len(fill(log, 20_000)) >= 0.8 * len(ids) / 2


def test_what_is_settled_makes_room_for_what_comes_with_it(open_log, monkeypatch) -> None:
    """LMDB does not use the pages again that the same transaction gives up."""
    monkeypatch.setattr(wal, "_SETTLE_WAIT_S", 60.0)
    log = open_log(4 * MIB)
    log.settle([log.append("logs", bytes(1_048_560), 7)])
    log.settle([log.append("logs", bytes(size), 7) for size in (600_000, 600_000, 0, 1_048_560)])
    number = log.append("logs", bytes(1_048_560), 7)
    log.close()
    assert [record.id for record in open_log(4 * MIB).pending()] == [number]


def test_a_full_log_says_what_to_do(open_log) -> None:
    log = open_log(MIB)
    fill(log)
    with pytest.raises(LogFullError, match=r"wal: .* in use.* — raise wal\.max_size_mib, or see"):
        log.append("traces", bytes(300_000), 0)


def test_what_the_whole_log_has_no_room_for_is_refused_for_good(open_log) -> None:
    log = open_log(MIB)
    with pytest.raises(LogTooSmallError, match=r"2,097,152 bytes .* raise wal\.max_size_mib"):
        log.append("traces", bytes(2 * MIB), 0)
    log.append("traces", b"x", 0)


def test_a_smaller_bound_than_what_is_there_still_drains(open_log, quick) -> None:
    log = open_log(16 * MIB)
    ids = fill(log)
    log.close()
    log = open_log(2 * MIB)
    with pytest.raises(LogFullError):
        log.append("traces", b"x", 0)
    assert len(list(log.pending())) == len(ids)
    log.settle(ids)
    wait_for(lambda: log.size_bytes == 0)
    log.append("traces", b"x", 0)


# --- who may open it -----------------------------------------------------------------------


def test_a_second_user_is_told_who_has_it(open_log, directory: Path) -> None:
    open_log()
    command = (
        "import sys; from pathlib import Path; from kat_otel.processor.wal import WriteAheadLog\n"
        f"WriteAheadLog(Path({str(directory)!r}), 1 << 24)"
    )
    run = subprocess.run(
        [sys.executable, "-c", command], check=False, capture_output=True, text=True
    )
    assert run.returncode != 0
    assert f"in use by process {os.getpid()} on " in run.stderr
    assert "or give each processor a directory of its own" in run.stderr
    with pytest.raises(ConfigError, match="in use by"):
        open_log()


def test_the_directory_is_its_users_alone(open_log, directory: Path) -> None:
    open_log()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_a_log_of_another_version_is_refused_and_left_alone(open_log, directory: Path) -> None:
    open_log().close()
    with lmdb.open(str(directory)) as other, other.begin(write=True) as transaction:
        transaction.put(b"kat:format", b"kat-wal/9")
    with pytest.raises(ConfigError, match=r"holds b'kat-wal/9', and this version reads b'kat-wal"):
        open_log()
    with lmdb.open(str(directory)) as other, other.begin() as transaction:
        assert transaction.get(b"kat:format") == b"kat-wal/9"


def test_what_is_no_log_is_refused(open_log, directory: Path) -> None:
    directory.mkdir()
    (directory / "data.mdb").write_bytes(random.Random(1).randbytes(100_000))
    with pytest.raises(ConfigError, match=r"data\.mdb cannot be opened as a log"):
        open_log()
    (directory / "data.mdb").unlink()
    with lmdb.open(str(directory)) as other, other.begin(write=True) as transaction:
        transaction.put(b"cat", b"meow")
    with pytest.raises(ConfigError, match="holds a database of another program"):
        open_log()


def test_a_place_where_nothing_can_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"wal\.directory: .* — give a directory"):
        WriteAheadLog(tmp_path / "file" / "wal", 16 * MIB)


def test_a_closed_log_takes_nothing(open_log) -> None:
    log = open_log()
    log.close()
    with pytest.raises(LogFailedError, match="closed"):
        log.append("traces", b"x", 0)


# --- a disk that is full or broken ---------------------------------------------------------


def fails(code: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    error = lmdb.Error("mdb_txn_commit")
    error.code = code
    return fail


def test_a_disk_with_errors_fails_the_request_and_the_next_may_pass(
    open_log, monkeypatch, caplog
) -> None:
    log = open_log()
    kept = log.append("traces", b"before", 0)
    with monkeypatch.context() as patch:
        patch.setattr(LogStore, "_commit", fails(errno.EIO))
        with pytest.raises(LogFailedError, match=r"data\.mdb: .* — see the kernel's log"):
            log.append("traces", b"refused", 0)
        log.settle([kept])
        # The settler has tried in vain, and says so.
        wait_for(lambda: "settled records stay in the log for now" in caplog.text)
    after = log.append("traces", b"after", 0)
    log.close()
    assert [(r.id, r.data) for r in open_log().pending()] == [(after, b"after")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_a_full_log(open_log, monkeypatch, code: int) -> None:
    log = open_log()
    monkeypatch.setattr(LogStore, "_commit", fails(code))
    with pytest.raises(LogFullError, match=r"data\.mdb: no space left .* — make room on the disk"):
        log.append("traces", b"refused", 0)


def test_a_store_that_has_stood_still_is_opened_again(open_log, monkeypatch) -> None:
    log = open_log()
    commit, calls = LogStore._commit, iter([lmdb.PanicError("mdb_txn_begin")])

    def panics_once(self, *arguments):
        for error in calls:
            raise error
        commit(self, *arguments)

    monkeypatch.setattr(LogStore, "_commit", panics_once)
    log.append("traces", b"x", 0)
    log.close()
    assert [r.data for r in open_log().pending()] == [b"x"]


def test_a_log_that_cannot_be_opened_again_is_tried_at_each_write(
    open_log, monkeypatch, caplog
) -> None:
    log = open_log()
    kept = [log.append("traces", bytes([n]), 0) for n in range(2)]
    with monkeypatch.context() as patch:

        def panics(*_: object) -> None:
            raise lmdb.PanicError("mdb_txn_begin")

        def no_disk(*_: object, **__: object) -> None:
            raise lmdb.DiskError("mdb_env_open")

        patch.setattr(LogStore, "_commit", panics)
        patch.setattr(lmdb, "open", no_disk)
        for _ in range(2):
            with pytest.raises(LogFailedError, match="cannot be opened again"):
                log.append("traces", b"refused", 0)
        log.settle(kept[:1])
        wait_for(lambda: "settled records stay in the log for now" in caplog.text)
        assert log._settler.is_alive()
    after = log.append("traces", b"after", 0)
    wait_for(lambda: not log._settled)
    assert [r.id for r in iter_all(log)] == [kept[1], after]


def test_reading_goes_on_while_the_log_is_opened_again(open_log) -> None:
    log = open_log()
    ids = [log.append("traces", random.Random(n).randbytes(50_000), 0) for n in range(50)]
    log.close()
    log = open_log()
    stop = threading.Event()

    def reopen() -> None:
        while not stop.is_set():
            log._store._reopen()

    reopening = threading.Thread(target=reopen)
    reopening.start()
    try:
        for _ in range(3):
            assert [r.id for r in log.pending()] == ids
    finally:
        stop.set()
        reopening.join()
    log._store._environment.close()  # as an opening that failed leaves it
    log._store._usable = False
    assert [r.id for r in log.pending()] == ids


def test_settling_outlives_a_moment_without_memory(open_log, quick, monkeypatch, caplog) -> None:
    log = open_log()
    kept = log.append("traces", b"x", 0)

    def no_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(LogStore, "write", no_memory)
        log.settle([kept])
        wait_for(lambda: "settled records stay in the log for now" in caplog.text)
    wait_for(lambda: log.size_bytes == 0)


def test_what_is_on_disk_though_its_write_failed_is_not_there_twice(open_log, monkeypatch) -> None:
    """The page that points to it was written, and then the disk said no."""
    log = open_log()
    before = log.append("traces", b"before", 0)
    commit = LogStore._commit

    def written_and_failed(self, *arguments):
        commit(self, *arguments)
        fails(errno.EIO)()

    with monkeypatch.context() as patch:
        patch.setattr(LogStore, "_commit", written_and_failed)
        for _ in range(2):
            with pytest.raises(LogFailedError):
                log.append("traces", b"again", 0)
    after = log.append("traces", b"again", 0)
    assert [(r.id, r.data) for r in iter_all(log)] == [(before, b"before"), (after, b"again")]


def full_disk_round(log: WriteAheadLog) -> None:
    """A disk that ends before the log's bound: refused, never lost, and well again."""
    ids = fill(log, 100_000)
    for _ in range(3):
        with pytest.raises(LogFullError, match="make room on the disk"):
            log.append("traces", bytes(500_000), 0)
    log.settle(ids[: len(ids) // 2])
    wait_for(lambda: not log._settled)
    more = log.append("traces", bytes(100_000), 0)
    assert [r.id for r in iter_all(log)] == [*ids[len(ids) // 2 :], more]
    assert all(r.data[:4] == i.to_bytes(4, "big") for i, r in enumerate_from(log, ids))


def iter_all(log: WriteAheadLog) -> Iterator[Record]:
    last = 0
    while (record := log._store.read(last, 2**62)) is not None:
        last = record.id
        yield record


def enumerate_from(log: WriteAheadLog, ids: list[int]) -> Iterator[tuple[int, Record]]:
    place = {number: at for at, number in enumerate(ids)}
    return ((place[r.id], r) for r in iter_all(log) if r.id in place)


def test_a_file_that_may_not_grow_is_a_full_log(open_log, quick) -> None:
    """A real write that the system cuts short: LMDB itself calls that an I/O error."""
    log = open_log(64 * MIB)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB + 1000, hard))
    try:
        full_disk_round(log)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    fill(log)


FULL_DISK = """
import subprocess, sys
from pathlib import Path
sys.path.insert(0, {repository!r})
from tests.processor.test_wal import WriteAheadLog, full_disk_round
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", sys.argv[1]], check=True)
log = WriteAheadLog(Path(sys.argv[1]) / "wal", 64 << 20)
full_disk_round(log)
log.close()
print("well")
"""


def test_a_full_disk_is_refused_and_well_again_when_there_is_room(tmp_path: Path) -> None:
    """A real tmpfs, in a mount namespace of its own: as root, or as a user who may have one."""
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace: sudo make test")
    code = FULL_DISK.format(repository=str(Path(__file__).parents[2]))
    run = subprocess.run(
        [*unshare, sys.executable, "-c", code, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.stdout == "well\n", run.stderr


FILLED_DISK = """
import random, subprocess, sys
from pathlib import Path
sys.path.insert(0, {repository!r})
from tests.processor.test_wal import LogFullError, WriteAheadLog, wait_for
for seed in range(4):
    disk = Path(sys.argv[1]) / str(seed)
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], check=True)
    log = WriteAheadLog(disk / "wal", 64 << 20)
    sizes, ids, refused = random.Random(seed), [], 0
    while refused < 30:
        try:
            size = sizes.choice([900, 5_000, 60_000, 200_000, 260_000])
            ids.append(log.append("traces", bytes(size), 0))
        except LogFullError:
            refused += 1
    log.settle(ids)
    wait_for(lambda: not log._settled)
    log.append("traces", bytes(200_000), 0)
    log.close()
print("well")
"""


def test_a_disk_that_the_log_itself_has_filled_to_the_last_page_is_worked_off(tmp_path) -> None:
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount namespace: sudo make test")
    code = FILLED_DISK.format(repository=str(Path(__file__).parents[2]))
    run = subprocess.run(
        [*unshare, sys.executable, "-c", code, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.stdout == "well\n", run.stderr
