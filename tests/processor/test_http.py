"""The HTTP server under peers that are slow, large, many, or gone; and its start and end."""

import asyncio
import http.client
import logging
import socket
import threading
import time

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from kat_otel.config import ServerTlsConfig
from kat_otel.errors import ConfigError
from kat_otel.processor import http as http_module
from kat_otel.processor.http import HttpServer
from tests.processor.receiving import Pki


class Application:
    """Echoes bodies; ``/slow`` answers when told; ``/broken`` raises."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.app = Starlette(
            routes=[
                Route("/echo", self.echo, methods=["GET", "POST"]),
                Route("/slow", self.slow),
                Route("/broken", self.broken),
            ]
        )

    async def echo(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(await request.body() or b"nothing")

    async def slow(self, _: Request) -> PlainTextResponse:
        self.entered.set()
        while not self.go_on.is_set():  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)
        return PlainTextResponse("at last")

    async def broken(self, _: Request) -> PlainTextResponse:
        raise LookupError("our own fault")


@pytest.fixture
def application():
    application = Application()
    yield application
    application.go_on.set()


@pytest.fixture
def serve(application):
    """Starts servers with the options given; stops them in the end."""
    servers = []

    def start(**options) -> HttpServer:
        server = HttpServer(
            "kat-test", "127.0.0.1:0", application.app, None, key="debug", **options
        )
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop(1)


def ask(port: int, path: str = "/echo", body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST" if body is not None else "GET", path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def raw(port: int, *pieces: bytes) -> bytes:
    """Everything the server says to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        for piece in pieces:
            peer.sendall(piece)
        said = b""
        while more := peer.recv(65536):
            said += more
        return said


def test_it_serves_and_says_nothing_about_its_make(serve):
    server = serve()
    assert ask(server.port) == (200, b"nothing")
    said = raw(server.port, b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").lower()
    assert b"uvicorn" not in said
    assert b"date: " in said


def test_a_connection_serves_many_requests(serve):
    connection = http.client.HTTPConnection("127.0.0.1", serve().port, timeout=20)
    for body in (b"one", b"two", b"three"):
        connection.request("POST", "/echo", body)
        assert connection.getresponse().read() == body
    connection.close()


def test_a_taken_port_is_a_clear_error(serve, application):
    taken = f"127.0.0.1:{serve().port}"
    with pytest.raises(ConfigError, match=rf"debug\.endpoint {taken}.*another process"):
        HttpServer("kat-test", taken, application.app, None, key="debug").start()


def test_an_address_that_is_not_ours_is_a_clear_error(application):
    with pytest.raises(ConfigError, match=r"debug\.endpoint 192\.0\.2\.1:0"):
        HttpServer("kat-test", "192.0.2.1:0", application.app, None, key="debug").start()


def test_localhost_is_all_loopback_addresses_on_one_port(application):
    server = HttpServer("kat-test", "localhost:0", application.app, None, key="debug")
    server.start()
    try:
        assert ask(server.port) == (200, b"nothing")
    finally:
        server.stop(1)


def test_unusable_certificates_are_clear_errors(application, tmp_path_factory):
    pki = Pki(tmp_path_factory.mktemp("pki"))
    certificate, key = map(str, pki.server)
    text = tmp_path_factory.mktemp("no-pem") / "text.pem"
    text.write_text("no certificate")
    cases = {
        r"debug\.tls\.cert_file: .*missing\.pem cannot be read": {"cert_file": "missing.pem"},
        r"debug\.tls: .*belong together": {"key_file": str(pki.client[1])},
        r"debug\.tls: .*must be PEM": {"cert_file": str(text)},
        r"debug\.tls\.client_ca_file: .*no certificates": {"client_ca_file": str(text)},
    }
    for said, wrong in cases.items():
        tls = ServerTlsConfig(**{"cert_file": certificate, "key_file": key} | wrong)
        with pytest.raises(ConfigError, match=said):
            HttpServer("kat-test", "127.0.0.1:0", application.app, tls, key="debug").start()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(http_module, "_READ_S", 0.1)
    monkeypatch.setattr(http_module, "_SWEEP_S", 0.02)


def test_headers_that_do_not_come_end_the_connection(serve, impatient):
    server = serve()
    for begun in (b"", b"\r\n", b"GET /echo HT", b"GET /echo HTTP/1.1\r\nhost: x\r\nslow: "):
        said = raw(server.port, begun)
        assert said.startswith(b"HTTP/1.1 408 "), begun
    assert ask(server.port) == (200, b"nothing")


def test_a_body_that_does_not_come_ends_the_connection(serve, impatient):
    server = serve()
    said = raw(server.port, b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
    assert said.startswith(b"HTTP/1.1 408 ")
    said = raw(
        server.port,
        b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    )
    assert said.startswith(b"HTTP/1.1 408 ")


def flood(port: int, head: bytes, piece: bytes) -> None:
    """Sends up to 160 MiB and fails as soon as the server has had enough."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        peer.sendall(head)
        for _ in range(160 * 2**20 // len(piece)):
            peer.sendall(piece)


def test_endless_headers_are_cut_off(serve):
    server = serve()
    for piece in (b"x" * 9_998 + b": y\r\n", b"x" * 10_000):  # many, or one that never ends
        with pytest.raises(ConnectionError):
            flood(server.port, b"GET /echo HTTP/1.1\r\nhost: x\r\n", piece)
    assert ask(server.port) == (200, b"nothing")


def test_a_body_above_the_limit_is_refused_and_the_sender_sees_why(serve):
    server = serve(max_body=1000)
    assert ask(server.port, body=bytes(1000))[0] == 200
    assert ask(server.port, body=bytes(1001))[0] == 413
    # The whole body is sent before the answer is looked at, as simple senders do.
    assert ask(server.port, body=bytes(3_000_000))[0] == 413


def test_a_chunked_body_without_an_end_is_cut_off(serve):
    server = serve(max_body=1000)
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with pytest.raises(ConnectionError):
        flood(server.port, head, b"4000\r\n" + bytes(0x4000) + b"\r\n")
    assert ask(server.port) == (200, b"nothing")


def test_connections_beyond_the_limit_are_told_to_come_back(serve):
    server = serve(max_connections=3)
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(3)]
    try:
        for peer in held:  # an answer proves that the server has counted the connection
            peer.sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n")
            assert peer.recv(4096).startswith(b"HTTP/1.1 200")
        said = raw(server.port)
    finally:
        for peer in held:
            peer.close()
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in said


def test_garbage_is_refused_and_harms_nobody(serve, caplog):
    server = serve()
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 99,
    ):
        assert raw(server.port, garbage).startswith(b"HTTP/1.1 400 ")
    assert ask(server.port) == (200, b"nothing")
    assert not caplog.records


def test_an_applications_error_is_logged_and_answered(serve, caplog):
    server = serve()
    assert ask(server.port, "/broken")[0] == 500
    assert ask(server.port) == (200, b"nothing")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "our own fault" in caplog.text


def test_a_request_under_way_at_stop_is_finished(serve, application):
    server = serve()
    answers: list[tuple[int, bytes]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(server.port, "/slow")))
    asking.start()
    assert application.entered.wait(20)
    stopping = threading.Thread(target=server.stop, args=(20,))
    stopping.start()
    application.go_on.set()
    for thread in (stopping, asking):
        thread.join(20)
        assert not thread.is_alive()
    assert answers == [(200, b"at last")]


def test_stop_does_not_wait_for_ever(serve, application):
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        peer.sendall(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        assert application.entered.wait(20)
        began = time.monotonic()
        server.stop(0.2)
        assert time.monotonic() - began < 3
        with pytest.raises(ConnectionError):
            ask(server.port)


def test_stop_ends_idle_connections_and_the_thread(serve):
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
        peer.sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\n\r\n")
        said = b""
        while not said.endswith(b"nothing"):
            said += peer.recv(4096)
        server.stop(20)
        assert peer.recv(4096) == b""
    assert not [thread for thread in threading.enumerate() if thread.name == "kat-test"]
    server.stop(20)  # a second time does nothing
