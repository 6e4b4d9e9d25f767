"""An HTTP server in a thread of its own: uvicorn behind limits that hold on an open network.

uvicorn alone lets a connection send its headers for ever, and headers of any size. Here every
connection has a deadline for its request, bounds for headers and body, and a way to end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, cast

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kat_otel.config import ServerTlsConfig
from kat_otel.processor.listen import bind, server_context

__all__ = ["HttpServer"]

_READ_S: Final = 10.0
"""Time for a request's headers, and for its body beside what _BYTES_PER_S allows."""
_BYTES_PER_S: Final = 65_536
"""A body may take a second longer for each of these."""
_WRITE_S: Final = 10.0
"""A peer that reads nothing of our answer for this long is cut off."""
_HANDSHAKE_S: Final = 10.0
_SWEEP_S: Final = 1.0
"""How often the connections are looked at."""
_IDLE_S: Final = 75
"""Between two requests of a connection; collectors keep theirs open."""
_HEADER_BYTES: Final = 65_536
_DISCARDED: Final = 16
"""A refused body is read and thrown away up to this many times the largest one."""

logger = logging.getLogger(__name__)
_wire = logging.getLogger(f"{__name__}.wire")
_wire.setLevel(logging.ERROR)  # a port scanner's garbage must not fill our log


class HttpServer:
    """Serves an ASGI application until stopped; takes no signals, logs no requests.

    Args:
        name: of the thread, and in messages.
        endpoint: ``host:port``; port 0 picks a free one.
        app: the application, such as a Starlette. What it raises is logged and answered with 500.
        tls: None serves plain text; with ``client_ca_file`` clients must show a certificate.
        key: where the settings are, such as ``receiver.http``, for messages.
        max_body: bytes of a request's body on the wire; beyond it 413.
        max_connections: open at once; one beyond them is answered with 503.
    """

    def __init__(
        self,
        name: str,
        endpoint: str,
        app: ASGIApp,
        tls: ServerTlsConfig | None,
        *,
        key: str,
        max_body: int = 2**20,
        max_connections: int = 512,
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._app = app
        self._tls = tls
        self._key = key
        self._limits = (max_body, max_connections)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.port = 0

    def start(self) -> None:
        """Listens and serves.

        Raises:
            ConfigError: the endpoint cannot be bound, or a certificate cannot be used.
        """
        context = None if self._tls is None else server_context(self._tls, f"{self._key}.tls")
        sockets = bind(self._endpoint, f"{self._key}.endpoint")
        self.port = sockets[0].getsockname()[1]
        config = uvicorn.Config(
            _guarded(self._app, self._name, self._limits[0]),
            loop="asyncio",
            http=_Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # the peer is who connects, not who a header says it is
            server_header=False,
            timeout_keep_alive=_IDLE_S,
        )
        self._server = _Server(config, sockets, context, self._limits)
        self._thread = threading.Thread(target=self._server.run, name=self._name, daemon=True)
        self._thread.start()
        self._server.ready.wait()
        if self._server.failure is not None:
            raise self._server.failure

    def stop(self, timeout: float = 5.0) -> None:
        """Takes no new requests, lets those under way finish within ``timeout`` seconds."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        self._server = self._thread = None
        server.end(timeout)
        thread.join(timeout + 2.0)
        if thread.is_alive():
            logger.error("%s: the HTTP server did not end in time", self._name)


class _Server(uvicorn.Server):
    """uvicorn's server with our sockets, a sweep over slow peers and an end that ends."""

    def __init__(
        self, config: uvicorn.Config, sockets: Sequence[Any], context: Any, limits: tuple[int, int]
    ) -> None:
        super().__init__(config)
        self._sockets = sockets
        self._context = context
        self._limits = limits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = asyncio.Event()
        self._grace = 0.0
        self.ready = threading.Event()
        self.failure: Exception | None = None

    def run(self, sockets: Any = None) -> None:
        try:
            super().run(sockets)
        except Exception as error:
            self.failure = error
            if self.ready.is_set():
                logger.exception("an HTTP server died")
        finally:
            self.ready.set()

    async def startup(self, sockets: Any = None) -> None:
        del sockets  # given to the constructor: they are bound by whoever starts us
        self._loop = asyncio.get_running_loop()
        secure = self._context is not None
        self.servers = [
            await self._loop.create_server(
                self._connection,
                sock=sock,
                ssl=self._context,
                backlog=128,
                ssl_handshake_timeout=_HANDSHAKE_S if secure else None,
                ssl_shutdown_timeout=1.0 if secure else None,
            )
            for sock in self._sockets
        ]
        await self.on_tick(0)
        self.started = True
        self.ready.set()

    def _connection(self) -> asyncio.Protocol:
        return _Connection(self.config, self.server_state, {}, limits=self._limits)

    async def main_loop(self) -> None:
        while not self._end.is_set():
            await self.on_tick(0)  # keeps the Date header true
            now = time.monotonic()
            for connection in cast(list[_Connection], list(self.server_state.connections)):
                connection.sweep(now)
            try:
                await asyncio.wait_for(self._end.wait(), _SWEEP_S)
            except TimeoutError:
                continue

    def end(self, grace: float) -> None:
        """Asks for the end, from any thread."""
        self._grace = grace
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._end.set)
        except RuntimeError:
            _wire.debug("the loop has ended by itself")

    async def shutdown(self, sockets: Any = None) -> None:
        del sockets
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        until = time.monotonic() + self._grace
        # uvicorn keeps its connections and tasks in sets and tells no events.
        while (state.connections or state.tasks) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # lets the connections learn that they are lost
        tasks = list(state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            logger.warning("%d HTTP request(s) cut off at the end", len(tasks))
            await asyncio.wait(tasks, timeout=1.0)


class _Connection(HttpToolsProtocol):
    """One connection with its deadlines and bounds."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: tuple[int, int],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _wire
        self.access_log = False
        self._max_body, self._max_connections = limits
        self._receiving = True  # a request, or the wait for the first one
        self._headers_complete = False
        self._received = 0
        self._begun = self._last_sweep = time.monotonic()
        self._stuck_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            self._refuse("503 Service Unavailable", "retry-after: 1\r\n")

    def data_received(self, data: bytes) -> None:
        if not self._receiving and not self._under_way:
            self._begin()  # at the first byte: blank lines before a request are no request
        super().data_received(data)
        self._received += len(data)
        if self.transport.is_closing() or not self._receiving:
            return
        if not self._headers_complete:
            if self._received > _HEADER_BYTES:
                self._refuse("431 Request Header Fields Too Large")
        elif self._received > self._wire_limit:
            self._refuse("413 Content Too Large")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin()

    def on_headers_complete(self) -> None:
        self._headers_complete = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._receiving = False

    @property
    def _wire_limit(self) -> int:
        """Bytes a request may have on the wire: chunk headers and trailers count, which never
        reach the application.

        What was answered before it had come whole is read on and thrown away, up to a point: who
        is still sending sees a reset connection instead of the answer, and would try again.
        """
        allowed = self._max_body + 4 * _HEADER_BYTES
        return allowed if self._under_way else _DISCARDED * allowed

    @property
    def _under_way(self) -> bool:
        """Whether the application works on a request."""
        cycle = cast(Any, self.cycle)  # None before the first request, other than its type says
        return cycle is not None and not cycle.response_complete

    def _begin(self) -> None:
        self._receiving = True
        self._headers_complete = False
        self._received = 0
        self._begun = time.monotonic()

    def sweep(self, now: float) -> None:
        """Ends the connection if its peer is too slow; called every _SWEEP_S."""
        passed, self._last_sweep = now - self._last_sweep, now
        if self.transport.is_closing() or self.flow.write_paused:
            self._stuck_since = self._stuck_since or now
            if now - self._stuck_since > _WRITE_S:
                self.transport.abort()
            return
        self._stuck_since = None
        if not self._receiving:
            return
        if self.flow.read_paused:
            self._begun += passed  # it is us who do not read
        elif now - self._begun > _READ_S + self._received / _BYTES_PER_S:
            self._refuse("408 Request Timeout")

    def _refuse(self, status: str, headers: str = "") -> None:
        answered = self._headers_complete and not self._under_way
        if not (answered or (self._under_way and self.cycle.response_started)):
            head = f"HTTP/1.1 {status}\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()


def _guarded(app: ASGIApp, name: str, max_body: int) -> ASGIApp:
    """Returns the application behind a check of the body's announced length and a log of errors."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if _announced(scope) > max_body:
                await _answer(send, 413)
            else:
                await app(scope, receive, watched)
        except asyncio.CancelledError:
            return  # cut off at the end, as said in the log
        except ClientDisconnect:
            return  # nobody is left to tell
        except Exception:
            logger.exception("%s: a request failed", name)
            if not started:
                await _answer(send, 500)

    return call


def _announced(scope: Scope) -> int:
    for key, value in scope["headers"]:
        if key == b"content-length":
            return int(value)  # the parser has checked that it is a number
    return 0


async def _answer(send: Send, status: int) -> None:
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
