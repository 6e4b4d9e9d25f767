"""What a request becomes: in the log before it is queued, queued before it is acknowledged."""

import threading

import numpy as np
import pytest

from kat_otel.config import ReceiverConfig
from kat_otel.errors import LogFailedError, LogFullError, LogTooSmallError
from kat_otel.otlp import encode_traces
from kat_otel.processor.ingest import Ingest
from kat_otel.processor.intake import Intake
from kat_otel.telemetry import Books
from tests.processor.receiving import a_log, a_metric

LIMIT = 100_000


class RecordingLog:
    """Keeps what is appended; raises or waits as told."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, int]] = []
        self.error: Exception | None = None
        self.room = 2**30
        self.entered = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()

    def has_room(self, size: int) -> bool:
        return size < self.room

    def append(self, signal: str, data: bytes, received_ns: int) -> int:
        self.entered.release()
        assert self.go_on.wait(20)
        if self.error is not None:
            raise self.error
        self.records.append((signal, data, received_ns))
        return 100 + len(self.records)


@pytest.fixture
def log() -> RecordingLog:
    return RecordingLog()


@pytest.fixture
def intake() -> Intake:
    return Intake(LIMIT)


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def ingest(intake, books, log) -> Ingest:
    return Ingest(ReceiverConfig(retry_after=2.5), intake, books, lambda: 7.0, log)


@pytest.fixture
def spans(fleet) -> bytes:
    return b"".join(encode_traces(fleet.rank(0, 0)))


def has_all_its_room(intake: Intake) -> bool:
    # Anything still held would leave no room: an intake takes a request of its whole size only
    # beside nothing else. One byte more is taken by an empty one alone.
    if not intake.reserve(LIMIT + 1):
        return False
    intake.release(LIMIT + 1)
    return True


def test_a_request_is_logged_queued_and_acknowledged(ingest, intake, log, books, spans):
    assert ingest.submit("traces", spans, "worker").outcome == "taken"
    batch = intake.take(0)
    assert (batch.signal, batch.receipt, batch.received, batch.size) == (
        *("traces", 101, 7.0),
        len(spans),
    )
    assert len(batch.table) == 11
    assert batch.data == b""  # the table is enough; the bytes are in the log
    assert [record[:2] for record in log.records] == [("traces", spans)]
    assert books.total("acknowledged") == 11
    intake.done(batch)
    assert has_all_its_room(intake)


@pytest.mark.parametrize(("signal", "data"), [("logs", a_log()), ("metrics", a_metric())])
def test_logs_and_metrics_go_the_same_way_byte_for_byte(ingest, intake, log, signal, data):
    assert ingest.submit(signal, data, "collector").outcome == "taken"
    batch = intake.take(0)
    assert (batch.signal, batch.table, batch.data, batch.receipt) == (signal, None, data, 101)
    assert [record[:2] for record in log.records] == [(signal, data)]


def test_nothing_is_acknowledged_or_judged_before_the_log_has_it(ingest, intake, log, spans):
    log.go_on.clear()
    answers = []
    sender = threading.Thread(target=lambda: answers.append(ingest.submit("traces", spans, "w")))
    sender.start()
    assert log.entered.acquire(timeout=20)
    assert intake.empty
    assert not answers
    log.go_on.set()
    sender.join(20)
    assert answers[0].outcome == "taken"
    assert not intake.empty


def test_requests_wait_for_the_log_together(ingest, intake, log, spans):
    # A log that commits for many at once is only fast if many may wait in it at once.
    log.go_on.clear()
    senders = [
        threading.Thread(target=ingest.submit, args=("traces", spans, "w")) for _ in range(8)
    ]
    for sender in senders:
        sender.start()
    for _ in senders:
        assert log.entered.acquire(timeout=20)
    log.go_on.set()
    for sender in senders:
        sender.join(20)
    assert sorted(intake.take(0).receipt for _ in senders) == list(range(101, 109))


def test_no_request_waits_for_a_step_to_be_complete(ingest, intake, fleet):
    # Nobody judges here, and still every rank's part is taken: the missing one may stand behind
    # these in a sender's queue.
    for step in range(3):
        for rank in range(3):
            (data,) = encode_traces(fleet.rank(rank, step))
            assert ingest.submit("traces", data, "worker").outcome == "taken"


@pytest.mark.parametrize(
    ("error", "said"),
    [(LogFullError("4,096 MiB"), "the log is full"), (LogFailedError("EIO"), "cannot be written")],
)
def test_a_log_that_takes_nothing_means_later(ingest, intake, log, books, spans, error, said):
    log.error = error
    answer = ingest.submit("traces", spans, "worker")
    assert (answer.outcome, answer.retry_after) == ("busy", 2.5)
    assert said in answer.message
    assert intake.empty
    assert has_all_its_room(intake)
    assert books.total("acknowledged") == 0
    log.error = None
    assert ingest.submit("traces", spans, "worker").outcome == "taken"


def test_what_the_log_refused_counts_until_it_has_room_again_and_no_request_is_needed(
    intake, books, log, spans
):
    now = [100.0]
    ingest = Ingest(ReceiverConfig(), intake, books, lambda: now[0], log)
    assert ingest.log_problem == ""
    log.error, log.room = LogFullError("4,096 MiB"), 0
    ingest.submit("traces", spans, "worker")
    now[0] += 3_600
    assert ingest.log_problem == "4,096 MiB"
    log.room = 2**30
    assert ingest.log_problem == ""


@pytest.mark.parametrize("error", [LogFullError("no space left"), LogFailedError("EIO")])
def test_what_the_disk_refused_counts_for_a_while_and_then_the_next_request_tells(
    intake, books, log, spans, error
):
    now = [100.0]
    ingest = Ingest(ReceiverConfig(), intake, books, lambda: now[0], log)
    log.error = error
    ingest.submit("traces", spans, "worker")
    now[0] += 9
    assert ingest.log_problem == str(error)
    now[0] += 2
    assert ingest.log_problem == ""
    ingest.submit("traces", spans, "worker")
    assert ingest.log_problem == str(error)
    log.error = None
    ingest.submit("traces", spans, "worker")
    assert ingest.log_problem == ""


def test_a_request_that_the_log_can_never_hold_is_refused_for_good(ingest, intake, log, spans):
    log.error = LogTooSmallError("raise wal.max_size_mib")
    answer = ingest.submit("traces", spans, "peer")
    assert (answer.outcome, answer.message) == ("invalid", "raise wal.max_size_mib")
    assert has_all_its_room(intake)


def test_a_full_queue_means_later_and_touches_no_log(ingest, intake, log, books, spans):
    assert intake.reserve(LIMIT)
    answer = ingest.submit("traces", spans, "worker")
    assert (answer.outcome, answer.retry_after) == ("busy", 2.5)
    assert not log.records
    assert books.marked("requests refused") == 1


def test_closing_means_later(ingest, intake, log, spans):
    intake.close()
    answer = ingest.submit("traces", spans, "worker")
    assert (answer.outcome, answer.retry_after) == ("closing", 2.5)
    assert not log.records


@pytest.mark.parametrize("signal", ["traces", "logs", "metrics"])
def test_what_is_not_of_the_signal_is_never_taken(ingest, intake, log, books, caplog, signal):
    answer = ingest.submit(signal, b"\xff\xff\xff", "10.0.0.7:123")
    assert answer.outcome == "invalid"
    assert "3 bytes" in answer.message
    assert "10.0.0.7:123" in caplog.text
    assert not log.records
    assert has_all_its_room(intake)
    assert books.marked("requests invalid") == 1


def test_many_broken_requests_are_one_line_in_the_log(ingest, books, caplog):
    for _ in range(100):
        ingest.submit("traces", b"\xff", "worker")
    assert books.marked("requests invalid") == 100
    assert len(caplog.records) == 1


def test_single_bad_spans_are_told_and_the_others_taken(ingest, books, fleet, intake):
    table = fleet.rank(0, 0)
    ids = table.span_id.copy()
    ids[3] = 0
    data = b"".join(encode_traces(table.with_columns(span_id=ids)))
    answer = ingest.submit("traces", data, "worker")
    assert (answer.outcome, answer.rejected) == ("taken", 1)
    assert answer.message
    assert (books.total("acknowledged"), books.total("invalid")) == (10, 1)


def test_attributes_above_the_limit_are_refused_and_the_limit_is_no_reason_at_recovery(
    intake, books, log, fleet
):
    config = ReceiverConfig(max_attribute_bytes=64)
    ingest = Ingest(config, intake, books, lambda: 7.0, log)
    table = fleet.rank(0, 0)
    long = table.with_columns(name=table.name.copy())
    long.name[0] = long.strings.add("k" * 65)
    data = b"".join(encode_traces(long))
    answer = ingest.submit("traces", data, "a peer")
    assert (answer.outcome, answer.rejected) == ("taken", 1)
    assert "64" in answer.message
    batch = ingest.recover("traces", data, 3)
    assert batch.table is not None
    assert len(batch.table) == len(table)
    assert batch.receipt == 3


def test_requests_share_their_texts_until_there_are_too_many(books, log, fleet):
    intake = Intake(10 * 2**20)
    ingest = Ingest(ReceiverConfig(max_strings=1_000), intake, books, lambda: 7.0, log)
    tables = []
    for first in range(0, 3_000, 600):
        table = fleet.rank(0, 0)
        names = [table.strings.add(f"kernel {first + i}") for i in range(600)]
        wide = table.take(np.resize(np.arange(len(table)), 600)).with_columns(
            name=np.array(names, np.int32), span_id=np.arange(first + 1, first + 601, dtype="u8")
        )
        for data in encode_traces(wide):
            assert ingest.submit("traces", data, "a peer").outcome == "taken"
        batch = intake.take(0)
        assert batch is not None
        tables.append(batch.table)
        assert [batch.table.strings[int(i)] for i in batch.table.name[:2]] == [
            f"kernel {first}",
            f"kernel {first + 1}",
        ]
    assert tables[0].strings is tables[1].strings
    assert len({id(table.strings) for table in tables}) > 1
    assert max(len(table.strings) for table in tables) < 3_000


@pytest.mark.parametrize("signal", ["traces", "logs", "metrics"])
def test_an_empty_request_is_taken_and_leaves_no_trace(ingest, intake, log, signal):
    assert ingest.submit(signal, b"", "collector").outcome == "taken"
    assert intake.empty
    assert not log.records
    assert has_all_its_room(intake)


def test_our_own_fault_is_no_answer_and_gives_its_room_back(ingest, intake, log, spans):
    log.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        ingest.submit("traces", spans, "worker")
    assert has_all_its_room(intake)


def test_without_a_log_receipts_still_differ(intake, books, spans):
    ingest = Ingest(ReceiverConfig(), intake, books)
    for _ in range(3):
        ingest.submit("traces", spans, "worker")
    assert len({intake.take(0).receipt for _ in range(3)}) == 3
