"""The OTLP gRPC service: bytes in, acknowledged when the intake has them.

Its answers are a contract with collectors: INVALID_ARGUMENT is never sent again, UNAVAILABLE
with RetryInfo is; a wrong choice loses data or makes a sender retry for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError as ProtobufDecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from kat_otel.config import ReceiverConfig
from kat_otel.errors import DecodeError
from kat_otel.otlp import Rejected, decode_traces
from kat_otel.processor.channel import listen
from kat_otel.processor.exporter import Payload, Signal
from kat_otel.processor.intake import Batch, Intake
from kat_otel.processor.retry_info import DETAILS_KEY, pack_retry_info
from kat_otel.telemetry import Books

__all__ = ["Receiver"]

_SERVICES: Final = "/opentelemetry.proto.collector."
_TRACES: Final = f"{_SERVICES}trace.v1.TraceService/Export"
_PASSED_ON: Final[dict[str, tuple[Signal, Any]]] = {
    f"{_SERVICES}logs.v1.LogsService/Export": ("logs", ExportLogsServiceRequest),
    f"{_SERVICES}metrics.v1.MetricsService/Export": ("metrics", ExportMetricsServiceRequest),
}

logger = logging.getLogger(__name__)


class Receiver(grpc.GenericRpcHandler):
    """A gRPC server for OTLP traces; logs and metrics are passed on as they came.

    Args:
        config: its settings.
        intake: takes the decoded spans.
        books: counts them.
        clock: monotonic seconds.
        pass_on: takes logs and metrics; False if there is no room now.
    """

    def __init__(
        self,
        config: ReceiverConfig,
        intake: Intake,
        books: Books,
        clock: Callable[[], float],
        pass_on: Callable[[Payload], bool],
    ) -> None:
        self._config = config
        self._intake = intake
        self._books = books
        self._clock = clock
        self._pass_on = pass_on
        self._server: grpc.Server | None = None
        self.port = 0

    def start(self) -> None:
        """Listens and serves.

        Raises:
            ConfigError: the endpoint cannot be bound.
        """
        limit = self._config.max_recv_msg_size_mib * 2**20
        server = grpc.server(
            ThreadPoolExecutor(self._config.max_concurrent_requests, "kat-receiver"),
            handlers=[self],
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.so_reuseport", 0),  # a second processor on the port must be an error
            ],
        )
        self.port = listen(server, self._config)
        server.start()
        self._server = server

    def stop(self, grace: float) -> None:
        """Takes no new requests and lets those under way finish within ``grace`` seconds."""
        if self._server is not None:
            self._server.stop(grace).wait()
            self._server = None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the handler of a method; None makes gRPC answer UNIMPLEMENTED."""
        # No serializers: handlers get the request's bytes as they came, and answer bytes.
        make_handler: Any = grpc.unary_unary_rpc_method_handler
        method: Any = handler_call_details.method
        if method == _TRACES:
            return make_handler(self._export)
        if method in _PASSED_ON:
            return make_handler(partial(self._forward, *_PASSED_ON[method]))
        return None

    def _forward(
        self, signal: Signal, request: Any, data: bytes, context: grpc.ServicerContext
    ) -> bytes:
        try:
            # Requests are joined byte by byte on their way out: one bad one would spoil others.
            request.FromString(data)
        except ProtobufDecodeError as error:
            message = f"request of {len(data):,} bytes: not OTLP {signal} ({error})"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        if not self._pass_on(Payload(signal, data)):
            self._refuse(context)
        return b""  # the empty response: all taken

    def _export(self, data: bytes, context: grpc.ServicerContext) -> bytes:
        received = self._clock()
        if not self._intake.reserve(len(data)):
            self._refuse(context)
        rejected = Rejected()
        try:
            table = decode_traces(data, rejected=rejected)
        except DecodeError as error:
            self._intake.release(len(data))
            self._books.mark("requests invalid")
            logger.warning("refused a request from %s: %s", context.peer(), error)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except BaseException:
            self._intake.release(len(data))
            raise
        response = ExportTraceServiceResponse()
        if rejected.spans:
            self._books.count("invalid", rejected.spans)
            response.partial_success.rejected_spans = rejected.spans
            response.partial_success.error_message = rejected.reason
        self._books.count("acknowledged", len(table))
        self._intake.accept(Batch(table, received, len(data)))
        return response.SerializeToString()

    def _refuse(self, context: grpc.ServicerContext) -> NoReturn:
        closing = self._intake.closed
        self._books.mark("requests refused")
        message = "shutting down" if closing else "queue full, send again later"
        code = grpc.StatusCode.UNAVAILABLE
        details = pack_retry_info(int(code.value[0]), message, self._config.retry_after)
        context.set_trailing_metadata(((DETAILS_KEY, details),))
        context.abort(code, message)
        raise AssertionError  # abort raises; its stub does not say so
