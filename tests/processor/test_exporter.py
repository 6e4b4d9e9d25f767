"""Export to a backend that refuses, vanishes, asks for time: a real gRPC server throughout."""

import logging
import queue
import socket
import socketserver
import threading
import time
from contextlib import contextmanager

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel.config import ExporterConfig, RetryConfig
from kat_otel.otlp import encode_traces
from kat_otel.processor.exporter import Exporter, Payload
from kat_otel.processor.ledger import Ledger
from kat_otel.processor.retry_info import DETAILS_KEY, pack_retry_info
from kat_otel.telemetry import Books
from tests.processor.receiving import Pki

QUICK = RetryConfig(initial_interval=0.01, max_interval=0.05)


def many_logs(count: int) -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for number in range(count):
        scope.log_records.add(time_unix_nano=number + 1)
    return request.SerializeToString()


def many_metrics(count: int) -> bytes:
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    for number in range(count):
        scope.metrics.add(name=str(number)).gauge.data_points.add(as_int=number)
    return request.SerializeToString()


MAKE = {"logs": many_logs, "metrics": many_metrics}


def items(request) -> int:
    if isinstance(request, ExportLogsServiceRequest):
        return len(request.resource_logs[0].scope_logs[0].log_records)
    return len(request.resource_metrics[0].scope_metrics[0].metrics)


@contextmanager
def proxy_that_answers(status: bytes):
    """Speaks as much HTTP/2 as it takes to answer every call with a status and no gRPC."""
    preface, settings = 24, b"\0\0\0\4\0\0\0\0\0"
    header = b"\x08\x03" + status  # HPACK: the name of static entry 8, :status, with this value

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.read(preface)
            self.wfile.write(settings)
            while head := self.rfile.read(9):
                size, kind, stream = int.from_bytes(head[:3], "big"), head[3], head[5:]
                self.rfile.read(size)
                if kind == 1:  # headers of a call
                    frame = len(header).to_bytes(3, "big") + b"\x01\x05" + stream + header
                    self.wfile.write(frame)
                elif kind == 6 and not head[4]:  # a ping
                    self.wfile.write(b"\0\0\x08\x06\x01\0\0\0\0" + bytes(8))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request, client_address) -> None:
            pass  # the exporter has gone

    with Server(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


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
    assert books.given_up() == {("traces", f"export {code.name}"): 1}
    assert code.name in caplog.text


@pytest.mark.parametrize("signal", ["logs", "metrics"])
def test_what_holds_no_spans_is_counted_by_signal_and_reason(signal, exporter, backend, books):
    backend.answers.put((grpc.StatusCode.UNIMPLEMENTED, ()))
    exporter.start()
    exporter.offer(Payload(signal, MAKE[signal](1)))
    backend.wait_for(lambda: backend.attempts == 1)
    backend.rejected = 1
    exporter.offer(Payload(signal, MAKE[signal](2)))
    exporter.stop(5)
    assert books.given_up() == {(signal, "export UNIMPLEMENTED"): 1}
    assert books.rejected() == {signal: 1}
    assert books.balance().counts == {}


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
    assert books.rejected() == {"traces": 4}


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


@pytest.fixture(scope="module")
def pki(tmp_path_factory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def attempt(config: ExporterConfig, payload: Payload, seconds: float = 5.0) -> Books:
    """Sends one request, for no longer than that."""
    exporter = Exporter(config, Books())
    exporter.start()
    exporter.offer(payload)
    exporter.stop(seconds)
    return exporter.books


def tls_of(pki: Pki, who=None) -> dict[str, object]:
    certificate, key = who or (None, None)
    return {
        "insecure": False,
        "ca_file": str(pki.ca[0]),
        "cert_file": certificate and str(certificate),
        "key_file": key and str(key),
    }


@pytest.mark.parametrize(
    ("mutual", "who", "taken"),
    [
        (False, None, True),
        (True, "client", True),
        (True, None, False),
        (True, "stranger", False),
    ],
)
def test_tls_and_its_own_certificate(make_backend, pki, payload, mutual, who, taken):
    backend = make_backend(pki.tls(mutual=mutual))
    tls = tls_of(pki, who and getattr(pki, who))
    config = ExporterConfig(endpoint=f"localhost:{backend.port}", tls=tls, retry=QUICK)
    books = attempt(config, payload, 5.0 if taken else 1.0)
    assert (books.total("forwarded"), len(backend.spans)) == ((11, 11) if taken else (0, 0))


def test_a_server_that_our_authority_does_not_know_gets_nothing(make_backend, pki, payload):
    backend = make_backend(pki.tls())
    tls = tls_of(pki) | {"ca_file": str(pki.stranger[0])}
    config = ExporterConfig(endpoint=f"localhost:{backend.port}", tls=tls, retry=QUICK)
    books = attempt(config, payload, 1.0)
    assert (books.total("forwarded"), backend.attempts) == (0, 0)


def test_a_bearer_token_is_shown_with_every_request_and_stands_in_no_log(
    make_backend, pki, payload, caplog
):
    caplog.set_level(logging.DEBUG)
    backend = make_backend(pki.tls())
    seen, take = [], backend.service

    def service(details):
        seen.append(dict(details.invocation_metadata).get("authorization"))
        return take(details)

    backend.service = service
    backend.answers.put((grpc.StatusCode.UNAUTHENTICATED, ()))
    config = ExporterConfig(
        endpoint=f"localhost:{backend.port}",
        tls=tls_of(pki),
        headers={"Authorization": "Bearer hunter2"},
        retry=QUICK,
    )
    assert dict(attempt(config, payload).balance().counts) == {"dropped:export UNAUTHENTICATED": 11}
    attempt(config, payload)
    assert seen == ["Bearer hunter2"] * 2
    assert "hunter2" not in caplog.text + repr(config)


@pytest.mark.parametrize(
    ("insecure", "host", "taken"),
    [
        (None, "127.0.0.1", True),  # nobody listens in
        (None, socket.gethostname(), False),  # elsewhere, by its name: TLS, which fails here
        (True, socket.gethostname(), True),  # asked for
        (False, "127.0.0.1", False),
    ],
    ids=["loopback", "elsewhere", "elsewhere, asked for", "loopback, TLS asked for"],
)
def test_plain_text_goes_to_loopback_only_unless_asked_for(
    make_backend, payload, insecure, host, taken
):
    backend = make_backend(host=socket.gethostbyname(host))
    config = ExporterConfig(
        endpoint=f"{host}:{backend.port}", tls={"insecure": insecure}, retry=QUICK
    )
    books = attempt(config, payload, 5.0 if taken else 1.0)
    assert books.total("forwarded") == (11 if taken else 0)
    assert backend.attempts == (1 if taken else 0)


@pytest.mark.parametrize(
    "words",
    [
        "grpc: received message larger than max (9 vs. 4)",
        "gRPC message exceeds maximum size 4: 9",
        "none that we know",
    ],
)
def test_a_request_that_the_endpoint_finds_too_large_is_parted_until_it_fits(
    backend, books, payload, words
):
    too_large = (grpc.StatusCode.RESOURCE_EXHAUSTED, ())
    backend.detail = words
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


@pytest.mark.parametrize("signal", ["logs", "metrics"])
def test_logs_and_metrics_are_parted_too(backend, books, signal):
    backend.answers.put((grpc.StatusCode.RESOURCE_EXHAUSTED, ()))
    exporter = Exporter(ExporterConfig(endpoint=f"127.0.0.1:{backend.port}", retry=QUICK), books)
    exporter.start()
    exporter.offer(Payload(signal, MAKE[signal](5)))
    exporter.stop(5)
    assert backend.attempts == 3
    assert sorted(map(items, getattr(backend, signal))) == [2, 3]
    assert books.given_up() == {}


def test_one_span_that_is_too_large_is_dropped_and_its_neighbours_arrive(exporter, backend, books):
    for _ in range(2):  # both, and the first alone
        backend.answers.put((grpc.StatusCode.RESOURCE_EXHAUSTED, ()))
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in (1, 2):
        scope.spans.add(trace_id=bytes([number] * 16), span_id=bytes([number] * 8), name="x")
    exporter.start()
    exporter.offer(Payload("traces", request.SerializeToString(), 2))
    exporter.stop(5)
    assert dict(books.balance().counts) == {"dropped:export RESOURCE_EXHAUSTED": 1, "forwarded": 1}


def test_a_proxy_that_answers_413_is_a_limit_too(books, payload):
    with proxy_that_answers(b"413") as port:
        exporter = Exporter(ExporterConfig(endpoint=f"127.0.0.1:{port}", retry=QUICK), books)
        exporter.start()
        exporter.offer(payload)
        exporter.stop(10)
    assert books.marked("export requests halved") == 10  # down to its single spans
    assert dict(books.balance().counts) == {"dropped:export UNKNOWN": 11}


def test_what_tells_of_our_own_work_stands_in_no_book_when_it_is_parted(exporter, backend, books):
    backend.answers.put((grpc.StatusCode.RESOURCE_EXHAUSTED, ()))
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in (1, 2, 3):
        scope.spans.add(trace_id=bytes([number] * 16), span_id=bytes([number] * 8), name="x")
    exporter.start()
    exporter.offer(Payload("traces", request.SerializeToString(), own=True))
    exporter.stop(5)
    assert len(backend.spans) == 3
    assert books.balance().counts == {}


@pytest.mark.parametrize("initial_interval", [0.0, 0.01])
def test_a_call_that_hangs_is_cut_off_at_the_deadline(backend, books, payload, initial_interval):
    settled = []
    ledger = Ledger(settled.extend)
    retry = RetryConfig(initial_interval=initial_interval, max_interval=0.05)
    config = ExporterConfig(endpoint=f"127.0.0.1:{backend.port}", timeout=60, retry=retry)
    exporter = Exporter(config, books, ledger=ledger, durable=True)
    with backend.hanging():
        exporter.start()
        for number in range(40):  # none of those behind it gets a time of its own
            ledger.claim((number,))
            large = payload.data + b"\xfa\x7f\x80\x80\x40" + bytes(2**20)
            assert exporter.offer(Payload("traces", large, payload.spans, (number,)))
        backend.wait_for(lambda: backend.attempts)
        begun = time.monotonic()
        exporter.stop(0.5)
        assert 0.5 <= time.monotonic() - begun < 1.0
    assert not exporter._thread.is_alive()
    assert (books.total("dropped"), settled) == (0, [])


def test_a_request_that_cannot_even_be_called_does_not_end_the_exporter(
    backend, books, payload, caplog
):
    settled = []
    ledger = Ledger(settled.extend)
    ledger.claim((1, 2))
    exporter = Exporter(ExporterConfig(endpoint=f"127.0.0.1:{backend.port}"), books, ledger=ledger)
    exporter.start()
    exporter.offer(Payload("traces", "no bytes", 11, (1,)))
    exporter.offer(Payload("logs", MAKE["logs"](1), 0, (2,)))
    backend.wait_for(lambda: backend.logs)
    exporter.stop(5)
    assert books.marked("requests stuck") == 1
    assert settled == [2]
    assert "sending failed" in caplog.text


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

    exporter._next = fails
    exporter.offer(Payload("traces", payload.data, payload.spans, (5,)))
    exporter.start()
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
