"""Sends OTLP requests to one endpoint from a bounded queue, retrying only what may succeed.

Which codes may be retried is the OTLP specification's list; everything else is permanent:
logged, counted, never sent again.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from kat_otel.config import ExporterConfig
from kat_otel.processor.channel import open_channel
from kat_otel.processor.halve import halve
from kat_otel.processor.ledger import Ledger
from kat_otel.processor.rarely import Rarely
from kat_otel.processor.retry_info import DETAILS_KEY, read_retry_delay
from kat_otel.telemetry import Books, Telemetry

__all__ = ["Exporter", "Payload", "Signal"]

Signal = Literal["traces", "logs", "metrics"]

_METHODS: Final[dict[Signal, tuple[str, Any, str]]] = {
    "traces": ("trace.v1.TraceService", ExportTraceServiceResponse, "rejected_spans"),
    "logs": ("logs.v1.LogsService", ExportLogsServiceResponse, "rejected_log_records"),
    "metrics": ("metrics.v1.MetricsService", ExportMetricsServiceResponse, "rejected_data_points"),
}

_PROXY_TOO_LARGE: Final = "http2 header with status: 413"
"""What gRPC makes of a proxy's answer, with the code UNKNOWN."""

_END_S: Final = 1.0
"""How long the sending thread may take to see that its call was cut off."""

_RETRYABLE: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

_LEAST_PAUSE_S: Final = 0.05
"""Before a retry, whatever the settings or the endpoint say: a wait of 0 would be a busy loop."""

logger = logging.getLogger(__name__)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Payload:
    """One request.

    Attributes:
        signal: which service takes it.
        data: the request's bytes. Requests of one signal may be joined byte by byte.
        spans: acknowledged spans that it carries, for the books.
        receipts: of the batches it stands on; claimed by whoever makes the payload, released
            when the endpoint has it or it is given up.
        own: it tells of the processor's own work, and sending it is not told again.
    """

    signal: Signal
    data: bytes
    spans: int = 0
    receipts: tuple[int, ...] = ()
    own: bool = False


@dataclass(frozen=True, slots=True)
class _Failure:
    code: grpc.StatusCode
    detail: str
    retryable: bool
    delay_s: float | None
    too_large: bool


_OUT_OF_TIME: Final = _Failure(
    grpc.StatusCode.CANCELLED, "cut off at the end", retryable=True, delay_s=None, too_large=False
)


class Exporter:
    """One thread, one connection. ``start``, ``offer`` from any thread, ``stop``.

    Args:
        config: its settings.
        books: counts what becomes of the spans.
        ledger: where the receipts of what has left are released; None if nobody claims any.
        durable: whether what is not sent by the end stays in a log, rather than being lost.
        telemetry: where attempts are timed.
        on_failure: called when the sending thread has died.

    Attributes:
        failure: what the sending thread died of; None if it did not. It takes nothing then.
        last_success: when the endpoint last acknowledged a request, monotonic seconds.
    """

    def __init__(
        self,
        config: ExporterConfig,
        books: Books,
        *,
        ledger: Ledger | None = None,
        durable: bool = False,
        telemetry: Telemetry | None = None,
        on_failure: Callable[[], None] = _nothing,
    ) -> None:
        if config.endpoint is None:
            raise ValueError("an exporter needs an endpoint")
        self._config = config
        self.books = books
        self._ledger = ledger
        self._durable = durable
        self._telemetry = telemetry or Telemetry()
        self._on_failure = on_failure
        self.failure: Exception | None = None
        self.last_success: float | None = None
        self._endpoint = config.endpoint
        self._limit = config.queue_size_mib * 2**20
        self._largest = int(config.max_request_mib * 2**20)
        self._queue: deque[Payload] = deque()
        self._queued = 0
        self._stop_at: float | None = None
        self._under_way: Any = None  # the call, which only the end of all time cuts off
        # Guards all of the above; waited on for room, for work and between retries.
        self._changed = threading.Condition()
        self._channel = open_channel(config)
        self._metadata = _metadata(config)
        self._calls = {signal: self._call(signal) for signal in _METHODS}
        self._rarely = Rarely()
        self._thread = threading.Thread(target=self._run, name="kat-exporter", daemon=True)

    def _call(self, signal: Signal) -> Any:
        service, response, _ = _METHODS[signal]
        return self._channel.unary_unary(
            f"/opentelemetry.proto.collector.{service}/Export",
            request_serializer=None,  # the bytes are the request
            response_deserializer=response.FromString,
        )

    def reload(self, config: ExporterConfig) -> None:
        """Takes new limits, headers, timeouts and retries; endpoint and TLS stay."""
        with self._changed:
            self._config = config
            self._limit = config.queue_size_mib * 2**20
            self._largest = int(config.max_request_mib * 2**20)
            self._metadata = _metadata(config)
            self._changed.notify_all()

    @property
    def queued_bytes(self) -> int:
        """Bytes of the requests that wait."""
        with self._changed:
            return self._queued

    def start(self) -> None:
        """Starts the sending thread."""
        self._thread.start()

    def offer(self, payload: Payload) -> bool:
        """Queues a request, waiting for room as long as it takes: nothing is lost.

        Returns:
            False if the exporter stops: the request stays in the log, or is dropped and counted.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stop_at is not None or self._has_room(payload))
            if self._stop_at is None:
                self._enqueue(payload)
                return True
        self._leave([payload], "export stopped", f"{self._endpoint} takes less than arrives")
        return False

    def try_offer(self, payload: Payload) -> bool:
        """Queues a request if there is room now; for senders who can be told to wait."""
        with self._changed:
            if self._stop_at is not None or not self._has_room(payload):
                return False
            self._enqueue(payload)
            return True

    def _has_room(self, payload: Payload) -> bool:
        # An empty queue takes a request of any size, or one above the limit could never pass.
        return not self._queue or self._queued + len(payload.data) <= self._limit

    def _enqueue(self, payload: Payload) -> None:
        self._queue.append(payload)
        self._queued += len(payload.data)
        self._changed.notify_all()

    def stop(self, timeout: float) -> None:
        """Sends what is queued within ``timeout`` seconds; the rest stays in the log, or is
        dropped and counted. A call that is under way then is cut off: the endpoint may hang.
        """
        with self._changed:
            self._stop_at = time.monotonic() + timeout
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            if self._under_way is not None:
                self._under_way.cancel()
        self._thread.join(_END_S)
        self._channel.close()

    def _run(self) -> None:
        payloads: list[Payload] = []
        try:
            while payloads := self._next():
                self._send_guarded(payloads)
        except Exception as error:
            # Who offers must not wait for ever for a thread that is gone, nor pass unseen.
            logger.exception("exporting to %s failed", self._endpoint)
            with self._changed:
                self.failure = error
                self._stop_at = time.monotonic()
                payloads.extend(self._queue)
                self._queue.clear()
                self._queued = 0
                self._changed.notify_all()
            self._on_failure()
            for payload in payloads:
                self._leave([payload], "export failed", repr(error))

    def _send_guarded(self, payloads: list[Payload]) -> None:
        try:
            self._send(payloads)
        except Exception:
            # A defect. Its batches stay claimed, so the log keeps them for the next start;
            # what is behind it must not wait for ever.
            self.books.mark("requests stuck", len(payloads))
            logger.exception("export to %s: sending failed", self._endpoint)

    def _next(self) -> list[Payload]:
        """Returns the next requests of one signal that fit one message; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stop_at is not None)
            if not self._queue:
                return []
            payloads = [self._queue.popleft()]
            size = len(payloads[0].data)
            while (
                self._queue
                and self._queue[0].signal == payloads[0].signal
                and size + len(self._queue[0].data) <= self._largest
            ):
                payloads.append(self._queue.popleft())
                size += len(payloads[-1].data)
            self._queued -= size
            self._changed.notify_all()
            return payloads

    def _send(self, payloads: list[Payload]) -> None:
        retry = self._config.retry
        give_up = time.monotonic() + (retry.max_elapsed_time or math.inf)
        wait = max(retry.initial_interval, _LEAST_PAUSE_S)
        while True:
            failure = self._attempt(payloads)
            if failure is None:
                self._release(payloads)
                return
            if not failure.retryable:
                self._send_apart(payloads, failure)
                return
            pause = failure.delay_s or wait * _jitter()  # 0 says no more than nothing
            if not self._pause(pause, give_up):
                self._leave(payloads, "export gave up", f"{failure.code.name}: {failure.detail}")
                return
            self.books.mark("export retries")
            self._log("retry", f"{failure.code.name}: {failure.detail}; trying again")
            wait = min(wait * 2, retry.max_interval)

    def _send_apart(self, payloads: list[Payload], failure: _Failure) -> None:
        """Sends what was refused for good in smaller parts: not all of it need be wrong."""
        if len(payloads) > 1:
            for payload in payloads:
                self._send([payload])
            return
        halves = halve(payloads[0].signal, payloads[0].data) if failure.too_large else []
        if not halves:
            self._drop(payloads, f"export {failure.code.name}", failure.detail)
            return
        self.books.mark("export requests halved")
        whole = payloads[0]
        created = halves[0][1] + halves[1][1] - whole.spans  # they stand first, and in no book
        first = max(0, halves[0][1] - created) if whole.signal == "traces" else 0
        if self._ledger is not None:  # each half lets go of the batches by itself
            self._ledger.claim(whole.receipts)
        for (data, _), carried in zip(halves, (first, whole.spans - first), strict=True):
            self._send([replace(whole, data=data, spans=carried)])

    def _pause(self, seconds: float, give_up: float) -> bool:
        """Waits before a retry; False if there is no time left for one."""
        with self._changed:
            until = time.monotonic() + max(seconds, _LEAST_PAUSE_S)
            while until <= min(give_up, self._stop_at or give_up):
                left = until - time.monotonic()
                if left <= 0:
                    return True
                self._changed.wait(left)
            return False

    def _attempt(self, payloads: list[Payload]) -> _Failure | None:
        signal = payloads[0].signal
        data = b"".join(payload.data for payload in payloads)
        spans = sum(payload.spans for payload in payloads)
        began = time.monotonic()
        try:
            response = self._call_now(signal, data)
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            failure = _failure(error) if isinstance(error, grpc.RpcError) else _OUT_OF_TIME
            self._timed(began, payloads, len(data), failure.code.name)
            return failure
        self._timed(began, payloads, len(data), "OK")
        self.last_success = time.monotonic()
        partial = response.partial_success
        rejected = int(getattr(partial, _METHODS[signal][2]))
        if rejected or partial.error_message:
            self._log("partial", f"rejected {rejected} of {signal}: {partial.error_message}")
            self.books.reject(signal, max(rejected, 0))
        rejected = min(max(rejected, 0), spans)
        self.books.count("forwarded", spans - rejected)
        self.books.count("dropped", rejected, "rejected by endpoint")
        return None

    def _call_now(self, signal: Signal, data: bytes) -> Any:
        """Returns the endpoint's response; :meth:`stop` may cut the call off."""
        with self._changed:
            timeout = self._config.timeout
            if self._stop_at is not None:
                timeout = min(timeout, self._stop_at - time.monotonic())
                if timeout <= 0:
                    raise grpc.FutureCancelledError
            call = self._calls[signal].future(data, timeout=timeout, metadata=self._metadata)
            self._under_way = call
        try:
            return call.result()
        finally:
            with self._changed:
                self._under_way = None

    def _timed(self, began: float, payloads: list[Payload], size: int, code: str) -> None:
        if all(payload.own for payload in payloads):  # a trace of sending traces has no end
            self._telemetry.latencies.observe("export", time.monotonic() - began)
            return
        watch = self._telemetry.watch("export", began)
        watch.stop(signal=payloads[0].signal, bytes=size, code=code)

    def _release(self, payloads: list[Payload]) -> None:
        if self._ledger is not None:
            self._ledger.release([r for payload in payloads for r in payload.receipts])

    def _leave(self, payloads: list[Payload], reason: str, detail: str) -> None:
        """Ends with a request that time ran out for: the log has it, or it is lost."""
        if self._durable and self._stop_at is not None:
            self.books.mark("requests left in the log", len(payloads))
            return
        self._drop(payloads, reason, detail)

    def _drop(self, payloads: list[Payload], reason: str, detail: str) -> None:
        self._release(payloads)
        spans = sum(payload.spans for payload in payloads)
        self.books.count("dropped", spans, reason)
        self.books.give_up(payloads[0].signal, reason, len(payloads))
        self._log(reason, f"{reason}: {len(payloads)} {payloads[0].signal} request(s): {detail}")

    def _log(self, topic: str, message: str) -> None:
        if self._rarely.unsaid((topic, message[:40])) is not None:
            logger.warning("export to %s: %s", self._endpoint, message)


def _failure(error: grpc.RpcError) -> _Failure:
    call: Any = error
    code: grpc.StatusCode = call.code()
    delay: float | None = None
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            delay = read_retry_delay(value)
    detail = str(call.details())
    exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
    # Servers word it differently, but to the protocol this is for good, and a message above their
    # limit is the one cause that we can mend. The other is a proxy that speaks HTTP to us.
    too_large = (exhausted and delay is None) or _PROXY_TOO_LARGE in detail
    retryable = code in _RETRYABLE or (exhausted and delay is not None)
    return _Failure(code, detail, retryable, delay, too_large)


def _metadata(config: ExporterConfig) -> tuple[tuple[str, str], ...] | None:
    return tuple((key.lower(), value) for key, value in config.headers.items()) or None


def _jitter() -> float:
    return random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
