"""The gRPC service: what each kind of request is answered, and what slow or many senders do."""

import gzip
import threading

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from kat_otel.config import ServerTlsConfig
from kat_otel.errors import ConfigError
from kat_otel.otlp import encode_traces
from kat_otel.processor import receiver as receiver_module
from tests.processor.receiving import METHODS, Receivers, a_log, a_metric, by_grpc

MIB = 2**20


@pytest.fixture
def spans(fleet) -> bytes:
    return b"".join(encode_traces(fleet.rank(0, 0)))


def padded(spans: bytes, size: int) -> bytes:
    """A good request of this many bytes: an unknown field fills it up."""
    rest = size - len(spans)
    head = b"\xca\x3e"  # field 1001, length-delimited
    for width in (1, 2, 3, 4):
        length = rest - len(head) - width
        varint = bytes(
            (length >> 7 * at & 127) | (128 if at < width - 1 else 0) for at in range(width)
        )
        if length >> 7 * width == 0:
            return spans + head + varint + bytes(length)
    raise AssertionError


def test_all_signals_are_taken(spans):
    with Receivers() as receivers:
        for signal, data in (("traces", spans), ("logs", a_log()), ("metrics", a_metric())):
            assert by_grpc(receivers.grpc.port, data, signal=signal).outcome == "taken"
    assert [batch.signal for batch in receivers.taken()] == ["traces", "logs", "metrics"]


def test_an_unknown_service_is_unimplemented():
    with (
        Receivers() as receivers,
        grpc.insecure_channel(f"127.0.0.1:{receivers.grpc.port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.unary_unary("/some.Other/Call")(b"", timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_single_bad_spans_are_told_in_the_partial_success(fleet):
    table = fleet.rank(0, 0)
    ids = table.span_id.copy()
    ids[3] = 0
    data = b"".join(encode_traces(table.with_columns(span_id=ids)))
    with (
        Receivers() as receivers,
        grpc.insecure_channel(f"127.0.0.1:{receivers.grpc.port}") as channel,
    ):
        said = ExportTraceServiceResponse.FromString(
            channel.unary_unary(METHODS["traces"])(data, timeout=20)
        )
    assert said.partial_success.rejected_spans == 1
    assert said.partial_success.error_message


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_the_limit_is_what_a_request_has_unpacked(spans, encoding):
    with Receivers(max_recv_msg_size_mib=1) as receivers:
        at_limit = by_grpc(receivers.grpc.port, padded(spans, MIB), encoding=encoding)
        above = by_grpc(receivers.grpc.port, padded(spans, MIB + 1), encoding=encoding)
    assert at_limit.outcome == "taken"
    assert above.status is grpc.StatusCode.INVALID_ARGUMENT  # nobody sends that again
    assert "max_recv_msg_size_mib" in above.message


def test_far_above_the_limit_grpc_refuses_without_a_time_to_come_back():
    with Receivers(max_recv_msg_size_mib=1) as receivers:
        told = by_grpc(receivers.grpc.port, bytes(3 * MIB))
    # By the specification RESOURCE_EXHAUSTED may be retried only with RetryInfo.
    assert (told.status, told.delay) == (grpc.StatusCode.RESOURCE_EXHAUSTED, None)


def test_a_bomb_is_refused_for_good():
    with Receivers(max_recv_msg_size_mib=1) as receivers:
        told = by_grpc(receivers.grpc.port, bytes(60 * MIB), encoding="gzip")
    assert told.status is grpc.StatusCode.INVALID_ARGUMENT


def test_a_damaged_stream_is_refused_for_good(spans):
    with Receivers() as receivers:
        told = by_grpc(receivers.grpc.port, gzip.compress(spans)[:-5])
    assert told.status is grpc.StatusCode.INVALID_ARGUMENT
    assert "cut off" in told.message


def test_a_full_queue_and_closing_ask_to_come_back(spans):
    with Receivers(queue_size_mib=1, retry_after=2.5) as receivers:
        assert receivers.intake.reserve(MIB)
        for signal in ("traces", "logs", "metrics"):
            told = by_grpc(receivers.grpc.port, spans, signal=signal)
            assert (told.outcome, told.delay) == ("later", 2.5)
            assert "queue full" in told.message
        receivers.intake.close()
        told = by_grpc(receivers.grpc.port, spans)
    assert (told.outcome, told.delay, told.message) == ("later", 2.5, "shutting down")


def test_a_request_that_does_not_come_holds_its_thread_no_longer_than_allowed(spans, monkeypatch):
    monkeypatch.setattr(receiver_module, "_ARRIVAL_S", 0.1)
    never = threading.Event()

    def slowly():
        never.wait(20)
        yield spans

    with (
        Receivers(max_concurrent_requests=1) as receivers,
        grpc.insecure_channel(f"127.0.0.1:{receivers.grpc.port}") as channel,
    ):
        held = channel.stream_unary(METHODS["traces"]).future(slowly(), timeout=20)
        assert by_grpc(receivers.grpc.port, spans).outcome == "taken"  # behind the slow one
        assert held.exception(20).code() is grpc.StatusCode.CANCELLED
        never.set()
    assert len(receivers.taken()) == 1


def test_a_call_without_a_request_is_refused():
    with (
        Receivers() as receivers,
        grpc.insecure_channel(f"127.0.0.1:{receivers.grpc.port}") as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        channel.stream_unary(METHODS["traces"])(iter(()), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_sender_that_gives_up_leaves_the_service_whole(spans):
    with (
        Receivers(max_concurrent_requests=1) as receivers,
        grpc.insecure_channel(f"127.0.0.1:{receivers.grpc.port}") as channel,
    ):
        never = threading.Event()

        def slowly():
            never.wait(20)
            yield spans

        held = channel.stream_unary(METHODS["traces"]).future(slowly(), timeout=20)
        held.cancel()
        never.set()
        assert by_grpc(receivers.grpc.port, spans).outcome == "taken"


def test_many_small_requests_at_once_are_all_taken(spans):
    with (
        Receivers(max_concurrent_requests=4) as receivers,
        grpc.insecure_channel(f"127.0.0.1:{receivers.grpc.port}") as channel,
    ):
        call = channel.unary_unary(METHODS["traces"])
        for answer in [call.future(spans, timeout=60) for _ in range(500)]:
            assert answer.result(60) == b""
    assert len(receivers.taken()) == 500


def test_an_unusable_certificate_is_an_error_at_start_not_at_the_first_handshake(tmp_path):
    no_pem = tmp_path / "no.pem"
    no_pem.write_text("no certificate")
    tls = ServerTlsConfig(cert_file=str(no_pem), key_file=str(no_pem))
    with pytest.raises(ConfigError, match=r"receiver\.tls: .*must be PEM"):
        Receivers(tls=tls).grpc.start()


def test_a_request_that_finds_no_memory_to_unpack_is_asked_to_come_back(spans, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    with Receivers() as receivers:
        with monkeypatch.context() as patch:
            patch.setattr(receiver_module, "unpack", no_memory)
            assert by_grpc(receivers.grpc.port, spans).outcome == "later"
        assert by_grpc(receivers.grpc.port, spans).outcome == "taken"
