"""Requests reach a collector that is slow, down, picky or hostile, or are counted."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from kat_otel.instrumentation.sending import delivery
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.export import Exporter, deliveries
from kat_otel.instrumentation.sending.outbox import Parcel
from kat_otel.instrumentation.sending.pack import Packer, request
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.table import to_table
from tests.instrumentation.simulated import Collector, Reply
from tests.processor.receiving import Pki, Receivers

BASE = "OTEL_EXPORTER_OTLP_"


def parcel(kind="digests", *bodies: bytes, items: int = 1) -> Parcel:
    signal = "metrics" if kind == "metrics" else "traces"
    return Parcel(signal, kind, [[body] for body in bodies or (b"",)], items)


@contextmanager
def sending(counts: Counts, url: str, **environment: str) -> Iterator[Exporter]:
    """An exporter that loses no time between two tries."""
    said = {BASE + key.upper(): value for key, value in environment.items()}
    said[f"{BASE}ENDPOINT"] = url
    exporter = Exporter(deliveries(said), counts, first_wait=0.01, limit=1_000_000)
    exporter.start()
    try:
        yield exporter
    finally:
        exporter.close(5.0)


def eventually(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        threading.Event().wait(0.005)


def test_requests_arrive_as_otlp_over_http_wants_them(collector: Collector, counts: Counts) -> None:
    with sending(counts, collector.url, headers="x-tenant=7") as exporter:
        exporter.offer(parcel("digests", b"abc", items=5))
        exporter.offer(parcel("metrics", b"def"))
        collector.wait_for(lambda requests: len(requests) == 2)
    traces, metrics = collector.requests
    assert (traces.path, traces.body) == ("/v1/traces", b"abc")
    assert (metrics.path, metrics.body) == ("/v1/metrics", b"def")
    assert traces.headers["content-type"] == "application/x-protobuf"
    assert traces.headers["x-tenant"] == "7"
    assert "transfer-encoding" not in traces.headers
    assert (counts["digests.sent"], counts["metrics.sent"]) == (5, 1)


def test_compressed_if_the_environment_says_so(collector: Collector, counts: Counts) -> None:
    with sending(counts, collector.url, compression="gzip") as exporter:
        exporter.offer(Parcel("traces", "whole", [[b"abc" * 100, memoryview(b"def")]], 1))
        collector.wait_for(lambda requests: len(requests) == 1)
    (came,) = collector.requests
    assert came.headers["content-encoding"] == "gzip"
    assert gzip.decompress(came.body) == b"abc" * 100 + b"def"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_cannot_be_taken_now_is_sent_again(
    collector: Collector, counts: Counts, status: int
) -> None:
    for _ in range(3):
        collector.replies.put(Reply(status))
    with sending(counts, collector.url) as exporter:
        exporter.offer(parcel("whole", b"abc", items=9))
        collector.wait_for(lambda requests: len(requests) == 4)
    assert counts["whole.sent"] == 9
    assert counts[f"requests.again:http_{status}"] == 3


@pytest.mark.parametrize("status", [302, 400, 401, 404, 413, 500, 501])
def test_what_is_refused_for_good_is_counted_and_not_sent_again(
    collector: Collector, counts: Counts, status: int, caplog
) -> None:
    location = {"location": f"{collector.url}/elsewhere"}
    collector.replies.put(Reply(status, location, b"no \xff thanks"))
    with sending(counts, collector.url) as exporter:
        exporter.offer(parcel("whole", b"one", b"two", items=9))
        exporter.offer(parcel("digests", b"next"))
        collector.wait_for(lambda requests: len(requests) == 2)
    assert [came.body for came in collector.requests] == [b"one", b"next"]
    assert counts[f"whole.dropped:http_{status}"] == 9
    assert counts["digests.sent"] == 1
    assert "thanks" in caplog.text


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("3", 3, 3),
        ("0", 0, 0),
        ("1e9", 60, 60),
        ("-5", 0, 0),
        ("nan", 0, 0),
        ("inf", 0, 0),
        ("soon", 0, 0),
        ("", 0, 0),
        (formatdate(0, usegmt=True), 0, 0),
        ("Mon, 99 Foo 20xx", 0, 0),
        ("9" * 400, 0, 0),
    ],
)
def test_a_wait_that_the_collector_asks_for_is_bounded(said: str, least, most) -> None:
    assert least <= delivery._retry_after(said) <= most


def test_a_wait_may_be_a_date() -> None:
    said = formatdate(time.time() + 30, usegmt=True)  # now: tests are collected long before
    assert 20 <= delivery._retry_after(said) <= 31


def test_the_wait_that_the_collector_asks_for_is_kept(collector: Collector, counts: Counts) -> None:
    collector.replies.put(Reply(503, {"retry-after": "1"}))
    with sending(counts, collector.url) as exporter:
        begin = time.monotonic()
        exporter.offer(parcel())
        collector.wait_for(lambda requests: len(requests) == 2)
        assert time.monotonic() - begin >= 1.0


def test_spans_that_a_collector_rejects_are_counted(
    collector: Collector, counts: Counts, caplog
) -> None:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    response.partial_success.error_message = "too old"
    collector.replies.put(Reply(200, {}, response.SerializeToString()))
    with sending(counts, collector.url) as exporter:
        exporter.offer(parcel("whole", b"abc", items=9))
        eventually(lambda: counts["whole.sent"] == 9)
    assert counts["whole.rejected"] == 3
    assert "too old" in caplog.text


@pytest.mark.parametrize("body", [b"\xff\xff", b"\x0a\x05\x08\x01", b"\x0a\x03\x08\xff\x01"])
def test_an_odd_answer_to_what_was_taken_harms_nobody(
    collector: Collector, counts: Counts, body: bytes
) -> None:
    collector.replies.put(Reply(200, {}, body))
    with sending(counts, collector.url) as exporter:
        exporter.offer(parcel())
        exporter.offer(parcel())
        eventually(lambda: counts["digests.sent"] == 2)


def test_an_endless_answer_is_cut_off(collector: Collector, counts: Counts) -> None:
    collector.replies.put(Reply(200, {}, bytes(5_000_000)))
    with sending(counts, collector.url) as exporter:
        exporter.offer(parcel())
        eventually(lambda: counts["digests.sent"] == 1)
    assert counts["requests.again:unreachable"] == 1


def test_no_http_at_all_is_tried_again(counts: Counts) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            for _ in range(2):
                peer, _ = server.accept()
                with peer:
                    peer.recv(1_000)
                    peer.sendall(b"\x00\xffSSH-2.0-what\r\n\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with sending(counts, f"http://127.0.0.1:{server.getsockname()[1]}") as exporter:
            exporter.offer(parcel())
            eventually(lambda: counts["requests.again:unreachable"] >= 2)
            thread.join(10)
            exporter.close(0.1)
    assert counts["digests.dropped:unreachable"] + counts["digests.dropped:closed"] == 1


def test_a_collector_that_is_down_gets_everything_when_it_is_back(
    counts: Counts, free_port: int
) -> None:
    with sending(counts, f"http://127.0.0.1:{free_port}") as exporter:
        for number in range(5):
            exporter.offer(parcel("digests", bytes([number])))
        eventually(lambda: counts["requests.again:unreachable"] >= 2)
        collector = Collector(free_port)
        collector.wait_for(lambda requests: len(requests) == 5)
        bodies = [came.body for came in collector.requests]
        eventually(lambda: counts["digests.sent"] == 5)
    collector.close()
    assert bodies == [bytes([number]) for number in range(5)]


def test_nobody_waits_for_a_collector_that_is_down(counts: Counts, free_port: int) -> None:
    with sending(counts, f"http://127.0.0.1:{free_port}") as exporter:
        for _ in range(1_000):
            exporter.offer(parcel("whole", bytes(10_000)))
        assert counts["whole.dropped:queue_full"] >= 890
        begin = time.monotonic()
        exporter.close(0.2)
        assert time.monotonic() - begin < 10  # not for ever: the wait that was asked for, and join
    dropped = sum(n for name, n in counts.read()[0].items() if name.startswith("whole.dropped"))
    assert dropped == 1_000


def test_what_waits_leaves_before_the_end(collector: Collector, counts: Counts) -> None:
    with sending(counts, collector.url) as exporter:
        for _ in range(50):
            exporter.offer(parcel())
    assert len(collector.requests) == 50


def test_where_others_trace_http_our_own_requests_are_not_traced(
    collector: Collector, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    enabled: list[bool] = []
    send = delivery.HttpClient.post

    def watched(self, *arguments):
        enabled.append(is_instrumentation_enabled())
        return send(self, *arguments)

    monkeypatch.setattr(delivery.HttpClient, "post", watched)
    with sending(counts, collector.url) as exporter:
        exporter.offer(parcel())
        collector.wait_for(lambda requests: len(requests) == 1)
    assert enabled == [False]


def test_a_defect_in_one_parcel_does_not_stop_the_next(
    collector: Collector, counts: Counts, caplog
) -> None:
    with sending(counts, collector.url) as exporter:
        bad = parcel("whole", b"abc")
        object.__setattr__(bad, "requests", [[None]])
        exporter.offer(bad)
        exporter.offer(parcel())
        collector.wait_for(lambda requests: len(requests) == 1)
    assert counts["whole.dropped:defect"] == 1
    assert "could not be sent" in caplog.text


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def spans(group: Group) -> Parcel:
    noisy, times = group.play(1)
    table = to_table(noisy, times, step=1, zero_unix_ns=10**18, rows=[0])
    table = replace(table, attributes={})
    lots = Packer().pack(table)
    requests = [request(group.program.resources[0], lot) for lot in lots]
    return Parcel("traces", "whole", requests, len(table))


@pytest.mark.parametrize("mutual", [False, True])
def test_over_tls_to_a_real_receiver(pki: Pki, counts: Counts, pair: Group, mutual: bool) -> None:
    tls = pki.tls(mutual=mutual)
    with Receivers(http={"tls": tls}) as receivers:
        url = f"https://localhost:{receivers.http.port}"
        own: dict[str, Path] = {}
        if mutual:
            own = dict(zip(("client_certificate", "client_key"), pki.client, strict=True))
        files = {"certificate": pki.ca[0], **own}
        with sending(counts, url, **{key: str(file) for key, file in files.items()}) as exporter:
            exporter.offer(spans(pair))
            eventually(lambda: counts["whole.sent"] > 0)
        assert sum(len(batch.table) for batch in receivers.taken()) == counts["whole.sent"]
        stranger = Counts()
        with sending(stranger, url) as exporter:  # trusts the system's authorities only
            exporter.offer(spans(pair))
            eventually(lambda: stranger["requests.again:unreachable"] > 0)
            exporter.close(0.05)
        assert stranger["whole.sent"] == 0


def test_over_grpc_where_it_is_installed(counts: Counts, pair: Group) -> None:
    with Receivers() as receivers:
        url = f"http://127.0.0.1:{receivers.grpc.port}"
        with sending(counts, url, protocol="grpc") as exporter:
            exporter.offer(spans(pair))
            eventually(lambda: counts["whole.sent"] > 0)
        assert sum(len(batch.table) for batch in receivers.taken()) == counts["whole.sent"]
    with sending(counts, url, protocol="grpc") as exporter:  # gone
        exporter.offer(spans(pair))
        eventually(lambda: counts["requests.again:grpc_unavailable"] > 0)
        exporter.close(0.05)


def test_without_grpc_it_is_http_and_said_so(monkeypatch, caplog) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(delivery.importlib, "import_module", absent)
    ways = deliveries({f"{BASE}PROTOCOL": "grpc", f"{BASE}ENDPOINT": "http://c:4317"})
    assert {type(way) for way in ways.values()} == {delivery.HttpDelivery}
    assert "pip install grpcio" in caplog.text
    for way in ways.values():
        way.close()
