"""The OTLP gRPC service: bytes in, acknowledged when they are logged and queued.

Its answers are a contract with collectors: INVALID_ARGUMENT is never sent again, UNAVAILABLE
with RetryInfo is; a wrong choice loses data or makes a sender retry for ever. Requests come plain,
gzip or deflate; any other ``grpc-encoding`` gRPC itself answers with INTERNAL (permanent) before it
asks us: senders who want zstd use OTLP/HTTP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NoReturn

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from kat_otel.config import ReceiverConfig
from kat_otel.errors import DecodeError
from kat_otel.processor.auth import Authenticator
from kat_otel.processor.channel import listen
from kat_otel.processor.exporter import Signal
from kat_otel.processor.ingest import Answer, Ingest
from kat_otel.processor.retry_info import DETAILS_KEY, pack_retry_info
from kat_otel.processor.unpack import TooLargeError, guess_encoding, unpack

__all__ = ["Receiver"]

_SERVICES: Final = "/opentelemetry.proto.collector."
_METHODS: Final[dict[str, Signal]] = {
    f"{_SERVICES}trace.v1.TraceService/Export": "traces",
    f"{_SERVICES}logs.v1.LogsService/Export": "logs",
    f"{_SERVICES}metrics.v1.MetricsService/Export": "metrics",
}
_ARRIVAL_S: Final = 60.0
"""A request that is not whole after this long is cancelled: it holds a thread."""


class Receiver(grpc.GenericRpcHandler):
    """A gRPC server for OTLP traces, logs and metrics.

    Args:
        config: its settings.
        ingest: takes the requests.
    """

    def __init__(self, config: ReceiverConfig, ingest: Ingest) -> None:
        self._config = config
        self._ingest = ingest
        self._limit = config.max_recv_msg_size_mib * 2**20
        self._server: grpc.Server | None = None
        self._arrivals = _Arrivals(_ARRIVAL_S)
        self._authenticator = Authenticator(None)
        self.port = 0

    def start(self) -> None:
        """Listens and serves.

        Raises:
            ConfigError: the endpoint cannot be bound, or a certificate or token cannot be used.
        """
        self._authenticator = Authenticator(self._config.auth, "receiver.auth")
        server = grpc.server(
            ThreadPoolExecutor(self._config.max_concurrent_requests, "kat-receiver"),
            handlers=[self],
            options=[
                # Above twice the limit gRPC itself answers RESOURCE_EXHAUSTED without RetryInfo,
                # which is permanent too, though some older senders try it again for a while.
                ("grpc.max_receive_message_length", 2 * self._limit),
                ("grpc.per_message_decompression", 0),  # unpacked here, within the limit
                ("grpc.so_reuseport", 0),  # a second processor on the port must be an error
                # gRPC resets the calls beyond it (UNAVAILABLE) rather than letting them wait.
                ("grpc.max_concurrent_streams", 1_024),
                # Collectors may ping, also when idle, and a peer that is gone is found out.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
            ],
        )
        self.port = listen(server, self._config)
        self._arrivals.start()
        server.start()
        self._server = server

    def stop(self, grace: float) -> None:
        """Takes no new requests and lets those under way finish within ``grace`` seconds."""
        if self._server is not None:
            self._server.stop(grace).wait()
            self._server = None
            self._arrivals.stop()

    def reload(self, config: ReceiverConfig) -> None:
        """Takes new tokens.

        Raises:
            ConfigError: a token file cannot be read; the old tokens stay.
        """
        self._authenticator = Authenticator(config.auth, "receiver.auth")

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the handler of a method; None makes gRPC answer UNIMPLEMENTED."""
        method: Any = handler_call_details.method
        signal = _METHODS.get(method)
        if signal is None:
            return None
        # No serializers: handlers get the request's bytes as they came, and answer bytes. As a
        # stream of one request the handler runs before the request has come: who may not call
        # costs no memory, and who sends too slowly can be ended.
        make_handler: Any = grpc.stream_unary_rpc_method_handler
        return make_handler(partial(self._export, signal))

    def _export(
        self, signal: Signal, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> bytes:
        if not self._authenticator.allows(_authorization(context)):
            context.abort(
                grpc.StatusCode.UNAUTHENTICATED,
                "the authorization metadata has no known bearer token",
            )
        try:
            data = self._unpacked(self._arrivals.first(requests, context))
        except (DecodeError, TooLargeError) as error:
            answer = self._ingest.invalid(str(error), str(context.peer()))
        except MemoryError:
            answer = self._ingest.refuse("out of memory, send again later")
        else:
            answer = self._ingest.submit(signal, data, str(context.peer()))
        if answer.outcome == "invalid":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, answer.message)
        if answer.outcome != "taken":
            _refuse(context, answer)
        if not answer.rejected:
            return b""  # the empty response: all taken
        response = ExportTraceServiceResponse()
        response.partial_success.rejected_spans = answer.rejected
        response.partial_success.error_message = answer.message
        return response.SerializeToString()

    def _unpacked(self, data: bytes) -> bytes:
        return unpack(data, guess_encoding(data), self._limit)


class _Arrivals:
    """Cancels the calls whose request does not come."""

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._lock = threading.Lock()
        self._calls: dict[grpc.ServicerContext, float] = {}
        self._stopped = threading.Event()

    def start(self) -> None:
        """Watches from now on."""
        threading.Thread(target=self._watch, name="kat-receiver-arrivals", daemon=True).start()

    def stop(self) -> None:
        """Ends watching."""
        self._stopped.set()

    def first(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Returns the call's request; ends with gRPC's error if the call is cancelled before.

        Raises:
            DecodeError: the call ended without a request.
        """
        with self._lock:
            self._calls[context] = time.monotonic() + self._wait
        try:
            return next(requests)
        except StopIteration:
            raise DecodeError("the call has no request message") from None
        finally:
            with self._lock:
                del self._calls[context]

    def _watch(self) -> None:
        while not self._stopped.wait(min(1.0, self._wait)):
            now = time.monotonic()
            with self._lock:
                late = [context for context, until in self._calls.items() if until < now]
            for context in late:
                context.cancel()


def _authorization(context: grpc.ServicerContext) -> str | None:
    for key, value in context.invocation_metadata():
        if key == "authorization":
            return value if isinstance(value, str) else value.decode("latin-1")
    return None


def _refuse(context: grpc.ServicerContext, answer: Answer) -> NoReturn:
    code = grpc.StatusCode.UNAVAILABLE
    details = pack_retry_info(int(code.value[0]), answer.message, answer.retry_after)
    context.set_trailing_metadata(((DETAILS_KEY, details),))
    context.abort(code, answer.message)
    raise AssertionError  # abort raises; its stub does not say so
