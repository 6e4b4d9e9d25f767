"""Export to a backend that refuses, vanishes, asks for time: a real gRPC server throughout."""

import logging
import queue
import threading
import time

import grpc
import pytest

from kat_otel.config import ExporterConfig, RetryConfig
from kat_otel.otlp import encode_traces
from kat_otel.processor.exporter import Exporter, Payload
from kat_otel.processor.ledger import Ledger
from kat_otel.processor.retry_info import DETAILS_KEY, pack_retry_info
from kat_otel.telemetry import Books

QUICK = RetryConfig(initial_interval=0.01, max_interval=0.05)


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def payload(fleet) -> Payload:
    table = fleet.rank(0, 0)
    return Payload("traces", b"".join(encode_traces(table)), len(table))


@pytest.fixture
def exporter(backend, books):
    exporter = Exporter(ExporterConfig(endpoint=f"127.0.0.1:{backend.port}", retry=QUICK), books)
    yield exporter
    exporter.stop(5)


def test_unavailable_is_tried_again_until_it_is_taken(exporter, backend, books, payload):
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED):
        backend.answers.put((code, ()))
    exporter.start()
    assert exporter.offer(payload)
    backend.wait_for(lambda: backend.tables)
    exporter.stop(5)
    assert backend.attempts == 3
    assert books.marked("export retries") == 2
    assert (books.total("forwarded"), books.total("dropped")) == (11, 0)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # without RetryInfo
    ],
)
def test_permanent_errors_are_counted_logged_and_not_tried_again(
    code, exporter, backend, payload, caplog
):
    books = exporter.books
    backend.answers.put((code, ()))
    exporter.start()
    with caplog.at_level(logging.WARNING):
        exporter.offer(payload)
        backend.wait_for(lambda: backend.attempts)
        exporter.offer(payload)
        backend.wait_for(lambda: backend.tables)
        exporter.stop(5)
    assert backend.attempts == 2
    assert dict(books.balance().counts) == {f"dropped:export {code.name}": 11, "forwarded": 11}
    assert code.name in caplog.text


def test_exhausted_with_a_time_to_wait_is_tried_again_after_it(exporter, backend, books, payload):
    details = pack_retry_info(8, "later", 0.3)
    backend.answers.put((grpc.StatusCode.RESOURCE_EXHAUSTED, ((DETAILS_KEY, details),)))
    begun = time.monotonic()
    exporter.start()
    exporter.offer(payload)
    backend.wait_for(lambda: backend.tables)
    assert time.monotonic() - begun >= 0.3
    exporter.stop(5)
    assert books.total("forwarded") == 11


def test_spans_that_the_backend_rejects_are_counted(exporter, backend, books, payload):
    backend.rejected = 4
    exporter.start()
    exporter.offer(payload)
    exporter.stop(5)
    assert dict(books.balance().counts) == {"forwarded": 7, "dropped:rejected by endpoint": 4}


def test_one_bad_request_does_not_take_its_neighbours_down(exporter, backend, books, payload):
    backend.answers.put((grpc.StatusCode.INVALID_ARGUMENT, ()))  # to the three joined
    backend.answers.put((grpc.StatusCode.INVALID_ARGUMENT, ()))  # to the first alone
    for _ in range(3):
        exporter.offer(payload)
    exporter.start()
    exporter.stop(5)
    assert backend.attempts == 4
    assert (books.total("forwarded"), books.total("dropped")) == (22, 11)


def test_an_endpoint_that_stays_away_costs_bounded_memory_and_holds_up_who_offers(
    books, payload, free_port
):
    config = ExporterConfig(endpoint=f"127.0.0.1:{free_port}", queue_size_mib=1, retry=QUICK)
    exporter = Exporter(config, books)
    large = Payload("traces", payload.data * 100, 1_100)
    taken = 0
    while exporter.try_offer(large):
        taken += 1
        assert taken * len(large.data) < 6 * 2**20, "the queue has no bound"
    answers = queue.Queue()
    waiting = threading.Thread(target=lambda: answers.put(exporter.offer(large)))
    waiting.start()
    with pytest.raises(queue.Empty):
        answers.get(timeout=0.2)
    exporter.start()
    exporter.stop(0.2)
    assert answers.get(timeout=5) in (True, False)  # room may come before the stop is seen
    waiting.join(5)
    assert books.total("forwarded") == 0
    assert books.total("dropped") == 1_100 * (taken + 1)
    assert not exporter.try_offer(payload)


def test_a_request_older_than_max_elapsed_time_is_given_up(books, payload, free_port):
    retry = RetryConfig(initial_interval=0.01, max_interval=0.02, max_elapsed_time=0.1)
    exporter = Exporter(ExporterConfig(endpoint=f"127.0.0.1:{free_port}", retry=retry), books)
    exporter.start()
    exporter.offer(payload)
    exporter.stop(10)
    assert dict(books.balance().counts) == {"dropped:export gave up": 11}


def test_headers_and_gzip_reach_the_backend(backend, books, payload):
    seen = []
    take = backend.service

    def service(details):
        seen.append(dict(details.invocation_metadata))
        return take(details)

    backend.service = service
    config = ExporterConfig(
        endpoint=f"127.0.0.1:{backend.port}", headers={"X-Tenant": "a"}, compression="gzip"
    )
    exporter = Exporter(config, books)
    exporter.start()
    exporter.offer(payload)
    exporter.stop(5)
    assert seen[0]["x-tenant"] == "a"
    assert books.total("forwarded") == 11


def test_a_request_that_the_endpoint_finds_too_large_is_parted_until_it_fits(
    backend, books, payload
):
    too_large = (grpc.StatusCode.RESOURCE_EXHAUSTED, ())
    backend.detail = "grpc: received message larger than max (9 vs. 4)"
    for _ in range(3):  # the whole, and both halves
        backend.answers.put(too_large)
    settled = []
    ledger = Ledger(settled.extend)
    ledger.claim((5,))
    config = ExporterConfig(endpoint=f"127.0.0.1:{backend.port}", retry=QUICK)
    exporter = Exporter(config, books, ledger=ledger)
    exporter.start()
    exporter.offer(Payload("traces", payload.data, payload.spans, (5,)))
    exporter.stop(5)
    assert books.total("forwarded") == 11
    assert books.total("dropped") == 0
    assert settled == [5]


def test_what_the_log_holds_is_left_there_at_the_end_and_not_called_lost(books, payload, free_port):
    settled = []
    ledger = Ledger(settled.extend)
    ledger.claim((5,))
    config = ExporterConfig(endpoint=f"127.0.0.1:{free_port}", retry=QUICK)
    exporter = Exporter(config, books, ledger=ledger, durable=True)
    exporter.start()
    exporter.offer(Payload("traces", payload.data, payload.spans, (5,)))
    exporter.stop(0.2)
    assert books.total("dropped") == 0
    assert settled == []


def test_a_batch_is_settled_when_the_endpoint_has_it_or_refuses_it_for_good(
    backend, books, payload
):
    backend.answers.put((grpc.StatusCode.INVALID_ARGUMENT, ()))
    settled: queue.Queue[list[int]] = queue.Queue()
    ledger = Ledger(settled.put)
    ledger.claim((1, 2))
    exporter = Exporter(ExporterConfig(endpoint=f"127.0.0.1:{backend.port}"), books, ledger=ledger)
    exporter.start()
    exporter.offer(Payload("traces", payload.data, 11, (1,)))
    assert settled.get(timeout=10) == [1]
    exporter.offer(Payload("traces", payload.data, 11, (2,)))
    assert settled.get(timeout=10) == [2]
    exporter.stop(5)
    assert (books.total("forwarded"), books.total("dropped")) == (11, 11)


def test_an_exporter_that_dies_holds_nobody_up_says_so_and_loses_nothing(books, payload, free_port):
    settled, told = [], threading.Event()
    ledger = Ledger(settled.extend)
    ledger.claim((5,))
    config = ExporterConfig(endpoint=f"127.0.0.1:{free_port}", queue_size_mib=1, retry=QUICK)
    exporter = Exporter(config, books, ledger=ledger, durable=True, on_failure=told.set)

    def fails(*_, **__):
        raise TypeError("no request of any kind")

    exporter._calls["traces"] = fails
    exporter.start()
    exporter.offer(Payload("traces", payload.data, payload.spans, (5,)))
    assert told.wait(10)
    assert isinstance(exporter.failure, TypeError)
    large = Payload("traces", payload.data * 1_000, 11_000, (5,))
    assert [exporter.offer(large) for _ in range(3)] == [False] * 3
    exporter.stop(5)
    assert (settled, books.total("dropped")) == ([], 0)  # it is in the log


@pytest.mark.parametrize("retry", [QUICK, RetryConfig(initial_interval=0, max_interval=0)])
def test_a_wait_of_nothing_is_no_busy_loop(backend, books, payload, retry):
    details = pack_retry_info(8, "now", 0.0)
    for _ in range(1_000):
        backend.answers.put((grpc.StatusCode.UNAVAILABLE, ((DETAILS_KEY, details),)))
    config = ExporterConfig(endpoint=f"127.0.0.1:{backend.port}", retry=retry)
    exporter = Exporter(config, books)
    exporter.start()
    exporter.offer(payload)
    backend.wait_for(lambda: backend.attempts)
    begun = time.monotonic()
    exporter.stop(0.5)
    assert time.monotonic() - begun < 2.0
    assert backend.attempts <= 15
    assert dict(books.balance().counts) == {"dropped:export gave up": 11}


def test_an_endpoint_that_rejects_less_than_nothing_has_taken_no_more_than_it_got(
    exporter, backend, books, payload
):
    backend.rejected = -4
    exporter.start()
    exporter.offer(payload)
    exporter.stop(5)
    assert dict(books.balance().counts) == {"forwarded": 11}


def test_halves_of_a_trace_that_stands_in_no_book_count_nothing(exporter, backend, books, payload):
    backend.detail = "grpc: received message larger than max (9 vs. 4)"
    backend.answers.put((grpc.StatusCode.RESOURCE_EXHAUSTED, ()))
    backend.rejected = 3
    exporter.start()
    exporter.offer(Payload("traces", payload.data, own=True))
    exporter.stop(5)
    assert sum(map(len, backend.tables)) == 11
    assert not any(books.balance().counts.values())
