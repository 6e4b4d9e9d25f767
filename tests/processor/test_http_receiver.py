"""The OTLP/HTTP service: what each kind of request is answered, and that no request harms it."""

import gzip
import http.client
import json
import socket
import threading
import zlib

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from kat_otel.errors import ConfigError
from kat_otel.otlp import encode_traces
from kat_otel.processor.retry_info import pack_status, read_retry_delay
from tests.processor.receiving import JSON, PACK, PROTOBUF, Receivers, a_log, a_metric, by_http
from tests.processor.test_receiver import MIB, padded


@pytest.fixture
def spans(fleet) -> bytes:
    return b"".join(encode_traces(fleet.rank(0, 0)))


def ask(port: int, body: bytes = b"", *, method="POST", path="/v1/traces", **headers: str):
    """Returns status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_all_signals_are_taken_in_every_packing(spans):
    with Receivers() as receivers:
        for signal, data in (("traces", spans), ("logs", a_log()), ("metrics", a_metric())):
            for encoding in PACK:
                told = by_http(receivers.http.port, data, signal=signal, encoding=encoding)
                assert (told.status, told.message) == (200, "")
    taken = receivers.taken()
    assert [batch.signal for batch in taken] == ["traces"] * 4 + ["logs"] * 4 + ["metrics"] * 4
    assert {batch.data for batch in taken} == {b"", a_log(), a_metric()}


def test_json_is_taken_and_goes_on_as_protobuf():
    message = ExportLogsServiceRequest.FromString(a_log())
    with Receivers() as receivers:
        status, headers, body = ask(
            receivers.http.port,
            json_format.MessageToJson(message).encode(),
            path="/v1/logs",
            content_type="application/json; charset=utf-8",
        )
    assert (status, headers["content-type"], body) == (200, "application/json", b"{}")
    assert [batch.data for batch in receivers.taken()] == [a_log()]


def test_json_spans_are_judged_and_logged_as_protobuf_spans(fleet):
    class Log:
        def append(self, *record) -> int:
            self.data = record[1]
            return 1

    log = Log()
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
        "name": "gemm",
        "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000000000001000",
    }
    document = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    with Receivers(log=log) as receivers:
        assert by_http(receivers.http.port, document, headers=JSON).status == 200
        logged = log.data
        assert by_http(receivers.http.port, logged).status == 200
    first, second = (batch.table for batch in receivers.taken())
    assert first.span_id.tolist() == second.span_id.tolist() == [0xB7AD6B7169203331]
    assert first.duration_ns.tolist() == [1000]


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
def test_single_bad_spans_are_told_in_the_requests_own_form(headers):
    spans = '{"traceId": "%s", "spanId": "%s", "name": "gemm"}'
    bad, good = spans % ("0" * 32, "0" * 16), spans % ("1" * 32, "1" * 16)
    body = f'{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{bad}, {good}]}}]}}]}}'.encode()
    if headers is PROTOBUF:
        from kat_otel.processor.json_requests import protobuf_of_json

        body = protobuf_of_json("traces", body)
    with Receivers() as receivers:
        status, _, said = ask(receivers.http.port, body, content_type=headers["content-type"])
    assert status == 200
    if headers is JSON:
        response = json_format.Parse(said, ExportTraceServiceResponse())
    else:
        response = ExportTraceServiceResponse.FromString(said)
    assert response.partial_success.rejected_spans == 1
    assert response.partial_success.error_message


@pytest.mark.parametrize(
    ("status", "request_of"),
    {
        404: {"path": "/v1/profiles"},
        405: {"method": "GET"},
        415: {"content_type": "text/plain"},
        400: {"body": b"\xff\xff"},
    }.items(),
)
def test_refusals_for_good_say_why_in_a_status(spans, status, request_of):
    request = {"body": spans, "content_type": "application/x-protobuf"} | request_of
    with Receivers() as receivers:
        found, headers, said = ask(receivers.http.port, **request)
    assert found == status
    assert headers["content-type"] == "application/x-protobuf"
    assert said.startswith(b"\x08")  # a google.rpc.Status with a code
    assert "retry-after" not in headers
    assert not receivers.taken()
    if status == 405:
        assert headers["allow"] == "POST"


def test_an_invalid_request_is_answered_in_the_requests_own_form():
    with Receivers() as receivers:
        _, _, said = ask(receivers.http.port, b"\xff", content_type="application/x-protobuf")
        _, headers, json_said = ask(receivers.http.port, b"{", content_type="application/json")
    message = said[said.index(b"request") :].decode()
    assert said == pack_status(3, message)
    assert "1 bytes" in message
    assert headers["content-type"] == "application/json"
    assert json.loads(json_said) == {
        "code": 3,
        "message": "document of 1 bytes: not JSON (Input data was truncated)",
    }


def test_a_request_without_a_content_type_is_refused(spans):
    with Receivers() as receivers:
        assert ask(receivers.http.port, spans)[0] == 415


@pytest.mark.parametrize("encoding", ["br", "snappy", "gzip, zstd", "lz4"])
def test_an_encoding_we_do_not_know_is_named(spans, encoding):
    with Receivers() as receivers:
        status, headers, said = ask(
            receivers.http.port, spans, content_type="application/json", content_encoding=encoding
        )
    assert status == 415
    assert encoding in json.loads(said)["message"]
    assert headers["accept-encoding"] == "gzip, zstd, deflate, identity"


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate"])
def test_a_damaged_body_is_refused_for_good(spans, encoding):
    with Receivers() as receivers:
        for damaged in (PACK[encoding](spans)[:-5], spans, b""):
            status, _, _ = ask(
                receivers.http.port,
                damaged,
                content_type="application/x-protobuf",
                content_encoding=encoding,
            )
            assert status == 400
    assert not receivers.taken()


@pytest.mark.parametrize("encoding", PACK)
def test_the_limit_is_what_a_request_has_unpacked(spans, encoding):
    with Receivers(max_recv_msg_size_mib=1) as receivers:
        at_limit = by_http(receivers.http.port, padded(spans, MIB), encoding=encoding)
        above = by_http(receivers.http.port, padded(spans, MIB + 1), encoding=encoding)
        bomb = by_http(receivers.http.port, bytes(15 * MIB), encoding=encoding)
    assert (at_limit.status, above.status, bomb.status) == (200, 413, 413)


def test_a_json_document_has_a_quarter_of_the_limit():
    document = b'{"resourceSpans": []' + b" " * (MIB // 4) + b"}"
    with Receivers(max_recv_msg_size_mib=1) as receivers:
        assert by_http(receivers.http.port, document, headers=JSON).status == 413
        assert by_http(receivers.http.port, document[: MIB // 5] + b"}", headers=JSON).status == 200


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
def test_a_full_queue_and_closing_ask_to_come_back(headers):
    body = a_log() if headers is PROTOBUF else b'{"resourceLogs": [{}]}'
    with Receivers(queue_size_mib=1, retry_after=2.5) as receivers:
        assert receivers.intake.reserve(MIB)
        full = by_http(receivers.http.port, body, signal="logs", headers=headers)
        receivers.intake.close()
        closing = by_http(receivers.http.port, body, signal="logs", headers=headers)
    assert (full.status, full.delay) == (503, 3)  # whole seconds, never too early
    assert "queue full" in full.message
    assert (closing.status, closing.delay) == (503, 3)
    assert "shutting down" in closing.message


def test_overload_says_when_to_come_back_in_the_body_too():
    with Receivers(queue_size_mib=1, retry_after=2.5) as receivers:
        assert receivers.intake.reserve(MIB)
        _, _, said = ask(receivers.http.port, a_log(), path="/v1/logs", **_PROTOBUF)
    assert read_retry_delay(said) == 2.5


_PROTOBUF = {"content_type": "application/x-protobuf"}


def test_bodies_that_come_slowly_may_not_fill_the_memory(spans):
    head = (
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
        b"content-length: 1048576\r\n\r\n"
    )
    peers = []
    with Receivers(queue_size_mib=1, max_recv_msg_size_mib=1) as receivers:
        try:
            for _ in range(3):  # of 1.8 MiB under way only 1 MiB may be held
                peers.append(socket.create_connection(("127.0.0.1", receivers.http.port), 20))
                peers[-1].sendall(head + bytes(600_000))
            answers = [peer for peer in peers if _answered(peer)]
            assert answers
            assert by_http(receivers.http.port, spans).status == 200
        finally:
            for peer in peers:
                peer.close()


def _answered(peer: socket.socket) -> bool:
    peer.settimeout(1)
    try:
        return peer.recv(4096).startswith(b"HTTP/1.1 503 ")
    except TimeoutError:
        return False


def test_a_handler_that_waits_for_the_log_holds_up_nobody_elses_answer(spans):
    entered, go_on = threading.Event(), threading.Event()

    class StuckLog:
        def append(self, *_) -> int:
            entered.set()
            assert go_on.wait(20)
            return 1

    with Receivers(log=StuckLog()) as receivers:
        waiting = threading.Thread(target=by_http, args=(receivers.http.port, spans))
        waiting.start()
        assert entered.wait(20)
        assert by_http(receivers.http.port, b"\xff").status == 400
        go_on.set()
        waiting.join(20)
    assert len(receivers.taken()) == 1


def test_a_sender_that_leaves_in_the_middle_is_forgotten(spans):
    with Receivers(queue_size_mib=1, max_recv_msg_size_mib=1) as receivers:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", receivers.http.port), 20) as peer:
                peer.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n")
                peer.sendall(b"content-type: application/x-protobuf\r\n\r\n" + bytes(500_000))
                peer.shutdown(socket.SHUT_WR)
                assert peer.recv(4096) == b""
        assert by_http(receivers.http.port, padded(spans, 900_000)).status == 200


def test_a_taken_port_is_a_clear_error():
    with Receivers() as receivers:
        other = Receivers(http={"endpoint": f"127.0.0.1:{receivers.http.port}"})
        with pytest.raises(ConfigError, match=r"receiver\.http\.endpoint .*another process"):
            other.http.start()


@pytest.fixture(scope="module")
def standing():
    with Receivers(max_recv_msg_size_mib=1) as receivers:
        yield receivers


def alive(receivers: Receivers) -> bool:
    answer = by_http(receivers.http.port, a_log(), signal="logs")
    receivers.taken()
    return answer.status == 200


bodies = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(gzip.compress),
    st.binary(max_size=300).map(zlib.compress),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["resourceSpans", "scopeSpans", "spans", "traceId", "name", "links"]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=12,
    ).map(lambda tree: json.dumps(tree).encode()),
)


@settings(max_examples=300, deadline=None)
@given(
    body=bodies,
    kind=st.sampled_from(["application/x-protobuf", "application/json"]),
    encoding=st.sampled_from(list(PACK)),
    signal=st.sampled_from(["traces", "logs", "metrics"]),
)
def test_no_body_is_our_fault(standing, body, kind, encoding, signal):
    status, _, _ = ask(
        standing.http.port,
        body,
        path=f"/v1/{signal}",
        content_type=kind,
        content_encoding=encoding,
    )
    standing.taken()
    assert status in {200, 400, 413}


@settings(max_examples=150, deadline=None)
@given(
    head=st.sampled_from(
        [b"", b"POST /v1/traces HTTP/1.1\r\n", b"POST /v1/logs HTTP/1.1\r\nhost:"]
    ),
    junk=st.binary(max_size=400)
    | st.text("abc:/ \r\n\0%é019;=", max_size=200).map(lambda text: text.encode()),
)
def test_no_bytes_on_the_wire_are_our_fault(standing, head, junk):
    with socket.create_connection(("127.0.0.1", standing.http.port), timeout=20) as peer:
        peer.sendall(head + junk + b"\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        said = b""
        try:
            while more := peer.recv(65536):
                said += more
        except ConnectionResetError:
            pass  # closed with bytes of ours unread
    assert b"HTTP/1.1 5" not in said
    assert alive(standing)
