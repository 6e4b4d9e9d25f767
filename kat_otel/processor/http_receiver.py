"""The OTLP/HTTP service: ``POST /v1/traces``, ``/v1/metrics`` and ``/v1/logs``.

Its answers are a contract with collectors, as the gRPC service's are: 503 is sent again after
``Retry-After``, every other error is for good.
"""

from __future__ import annotations

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from kat_otel.config import ReceiverConfig
from kat_otel.errors import DecodeError
from kat_otel.processor.auth import Authenticator
from kat_otel.processor.exporter import Signal
from kat_otel.processor.http import HttpServer
from kat_otel.processor.ingest import Answer, Ingest
from kat_otel.processor.json_requests import protobuf_of_json
from kat_otel.processor.retry_info import pack_retry_info, pack_status
from kat_otel.processor.unpack import ENCODINGS, TooLargeError, unpack

__all__ = ["HttpReceiver"]

_SIGNALS: Final[dict[str, Signal]] = {
    "/v1/traces": "traces",
    "/v1/logs": "logs",
    "/v1/metrics": "metrics",
}
_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_JSON_SHARE: Final = 4
"""A JSON document becomes many times its size in memory, so a quarter of the limit is its own."""

# gRPC's codes, as google.rpc.Status wants them.
_CODES: Final = {
    HTTPStatus.BAD_REQUEST: 3,
    HTTPStatus.UNAUTHORIZED: 16,
    HTTPStatus.NOT_FOUND: 12,
    HTTPStatus.METHOD_NOT_ALLOWED: 12,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: 3,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: 3,
    HTTPStatus.SERVICE_UNAVAILABLE: 14,
}


@dataclass(frozen=True, slots=True)
class _Reply:
    status: HTTPStatus
    message: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    rejected: int = 0
    retry_after: float = 0.0


class HttpReceiver:
    """An HTTP server for OTLP traces, logs and metrics.

    Args:
        config: the receiver's settings; those of HTTP are in ``config.http``.
        ingest: takes the requests.
    """

    def __init__(self, config: ReceiverConfig, ingest: Ingest) -> None:
        self._config = config
        self._ingest = ingest
        self._limit = config.max_recv_msg_size_mib * 2**20
        # Bodies that have come, wholly or in part, and are not worked off yet: senders who send
        # slowly, or all at once, hold this much memory together. Touched by the event loop only.
        self._held = 0
        self._holdable = max(self._limit, config.queue_size_mib * 2**20)
        self._authenticator = Authenticator(None)
        self._threads: ThreadPoolExecutor | None = None
        self._json_thread: ThreadPoolExecutor | None = None
        self._server: HttpServer | None = None

    @property
    def port(self) -> int:
        """The port that receives OTLP over HTTP; 0 before the start."""
        return self._server.port if self._server else 0

    def start(self) -> None:
        """Listens and serves.

        Raises:
            ConfigError: the endpoint cannot be bound, or a certificate or token cannot be used.
        """
        http = self._config.http
        if http.endpoint is None:
            raise ValueError("receiver.http.endpoint is not set")
        self._authenticator = Authenticator(http.auth, "receiver.http.auth")
        threads = self._config.max_concurrent_requests
        self._threads = ThreadPoolExecutor(threads, "kat-http-receiver")
        # JSON is slow and large in memory: one document at a time, behind nobody's back.
        self._json_thread = ThreadPoolExecutor(1, "kat-http-json")
        server = HttpServer(
            "kat-http", http.endpoint, self, http.tls, key="receiver.http", max_body=self._limit
        )
        server.start()
        self._server = server

    def stop(self, grace: float) -> None:
        """Takes no new requests and lets those under way finish within ``grace`` seconds."""
        if self._server is not None:
            self._server.stop(grace)
            self._server = None
        for threads in filter(None, (self._threads, self._json_thread)):
            threads.shutdown(wait=False, cancel_futures=True)
        self._threads = self._json_thread = None

    def reload(self, config: ReceiverConfig) -> None:
        """Takes new tokens.

        Raises:
            ConfigError: a token file cannot be read; the old tokens stay.
        """
        self._authenticator = Authenticator(config.http.auth, "receiver.http.auth")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        headers = Headers(scope=scope)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = headers.get("content-encoding", "identity").strip().lower() or "identity"
        reply = self._refused(scope, headers, kind, encoding)
        if reply is None:
            body = await self._body(receive)
            if body is None:
                return  # the sender has gone
            if isinstance(body, _Reply):
                reply = body
            else:
                try:
                    reply = await self._worked_off(scope, kind, encoding, body)
                finally:
                    self._held -= len(body)
        await _send(send, reply, kind)

    def _refused(self, scope: Scope, headers: Headers, kind: str, encoding: str) -> _Reply | None:
        """Returns the answer to a request that need not be read; None for the others."""
        if scope["path"] not in _SIGNALS:
            return _Reply(HTTPStatus.NOT_FOUND, f"POST to one of {', '.join(_SIGNALS)}")
        if scope["method"] != "POST":
            allow = (("allow", "POST"),)
            return _Reply(HTTPStatus.METHOD_NOT_ALLOWED, "OTLP is sent by POST", allow)
        if not self._authenticator.allows(headers.get("authorization")):
            wanted = (("www-authenticate", "Bearer"),)
            message = "the authorization header has no known bearer token"
            return _Reply(HTTPStatus.UNAUTHORIZED, message, wanted)
        if kind not in (_PROTOBUF, _JSON):
            message = f"content-type {kind[:100]!r}: wants {_PROTOBUF} or {_JSON}"
            return _Reply(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message)
        if encoding not in ENCODINGS:
            known = (("accept-encoding", ", ".join(ENCODINGS)),)
            message = f"content-encoding {encoding[:100]!r}: wants one of {', '.join(ENCODINGS)}"
            return _Reply(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, known)
        return None

    async def _body(self, receive: Receive) -> bytes | _Reply | None:
        """Returns the body as it came, an answer if it may not be held, or None if it ends early.

        Its length counts as held until the caller gives it back.
        """
        pieces: list[bytes] = []
        size = 0
        kept = False
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                piece: bytes = message.get("body", b"")
                pieces.append(piece)
                size += len(piece)
                self._held += len(piece)
                if size > self._limit:
                    too_large = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
                    return _Reply(too_large, str(TooLargeError(self._limit)))
                if self._held > self._holdable:
                    return _reply(self._ingest.refuse())
                if not message.get("more_body", False):
                    kept = True
                    return b"".join(pieces)
        finally:
            if not kept:
                self._held -= size

    async def _worked_off(self, scope: Scope, kind: str, encoding: str, body: bytes) -> _Reply:
        threads = self._json_thread if kind == _JSON else self._threads
        if threads is None or self._ingest.closing:
            return _reply(self._ingest.refuse())
        host, port = scope.get("client") or ("?", 0)
        work = (_SIGNALS[scope["path"]], kind, encoding, body, f"{host}:{port}")
        return await asyncio.get_running_loop().run_in_executor(threads, self._work, *work)

    def _work(self, signal: Signal, kind: str, encoding: str, body: bytes, peer: str) -> _Reply:
        """Unpacks and submits, in a thread of the pool."""
        try:
            if kind == _JSON:
                document = unpack(body, encoding, self._limit // _JSON_SHARE)
                data = protobuf_of_json(signal, document)
            else:
                data = unpack(body, encoding, self._limit)
        except TooLargeError as error:
            said = self._ingest.invalid(str(error), peer).message
            return _Reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)
        except DecodeError as error:
            return _reply(self._ingest.invalid(str(error), peer))
        except MemoryError:
            return _reply(self._ingest.refuse("out of memory, send again later"))
        return _reply(self._ingest.submit(signal, data, peer))


def _reply(answer: Answer) -> _Reply:
    if answer.outcome == "taken":
        return _Reply(HTTPStatus.OK, answer.message, rejected=answer.rejected)
    if answer.outcome == "invalid":
        return _Reply(HTTPStatus.BAD_REQUEST, answer.message)
    wait = (("retry-after", str(max(1, math.ceil(answer.retry_after)))),)
    unavailable = HTTPStatus.SERVICE_UNAVAILABLE
    return _Reply(unavailable, answer.message, wait, retry_after=answer.retry_after)


def _content(reply: _Reply, kind: str) -> bytes:
    """Returns the body in the request's own form: the response message, or a Status."""
    if reply.status is HTTPStatus.OK:
        if kind == _JSON:
            # Counts are 64 bits wide and therefore texts in protobuf's JSON.
            said = {"rejectedSpans": str(reply.rejected), "errorMessage": reply.message}
            return json.dumps({"partialSuccess": said} if reply.rejected else {}).encode()
        if not reply.rejected:
            return b""
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = reply.rejected
        response.partial_success.error_message = reply.message
        return response.SerializeToString()
    code = _CODES[reply.status]
    if kind == _JSON:
        return json.dumps({"code": code, "message": reply.message}).encode()
    if reply.retry_after:
        return pack_retry_info(code, reply.message, reply.retry_after)
    return pack_status(code, reply.message)


async def _send(send: Send, reply: _Reply, kind: str) -> None:
    content = _content(reply, kind)
    headers = [
        ("content-type", _JSON if kind == _JSON else _PROTOBUF),
        ("content-length", str(len(content))),
        *reply.headers,
    ]
    raw = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers]
    await send({"type": "http.response.start", "status": int(reply.status), "headers": raw})
    await send({"type": "http.response.body", "body": content, "more_body": False})
