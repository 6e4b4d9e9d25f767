"""Spans of the processor's own work: requests, steps and exports, if ``telemetry.traces`` says so.

Made from the stopwatches of :mod:`kat_otel.telemetry` when the work is over, and sent through the
exporter that is there: its TLS, headers and retries serve both. The OTel SDK would bring a second
channel, a second queue and a span object for work that is never sampled.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from kat_otel import semconv
from kat_otel.otlp.wire import attribute
from kat_otel.telemetry import Books, Latency, Work

__all__ = ["SelfTraces"]

_EVERY: Final = 100
_SLOW_S: Final = 1.0
_PER_SECOND: Final = 20
"""Traces a second at most: when everything is slow, telling so must not make it slower."""
_SERVICE: Final = "kat-process"
_ATTRIBUTES: Final = "kat.processor."
_KINDS: Final[dict[Latency, Any]] = {
    "request": Span.SPAN_KIND_SERVER,
    "export": Span.SPAN_KIND_CLIENT,
}


class SelfTraces:
    """Takes finished work from any thread: one of a hundred of each kind, and all that was slow.

    Args:
        offer: takes the bytes of an export request, without waiting; False if there is no room.
        books: counts what was left out.
        slow_s: work that takes longer is always sent. The wait for a step's other ranks is none
            of our work and does not count.
        clocks: returns seconds of the work's clock and Unix nanoseconds, of the same moment.
    """

    def __init__(
        self,
        offer: Callable[[bytes], bool],
        books: Books,
        *,
        slow_s: float = _SLOW_S,
        clocks: Callable[[], tuple[float, int]] = lambda: (time.monotonic(), time.time_ns()),
    ) -> None:
        self._offer = offer
        self._books = books
        self._slow_s = slow_s
        self._clocks = clocks
        self._lock = threading.Lock()
        self._seen: dict[Latency, int] = {}
        self._second = 0
        self._sent = 0
        self._resource = {
            semconv.SERVICE_NAME: _SERVICE,
            "host.name": socket.gethostname(),
        }

    def take(self, work: Work) -> None:
        """Sends the work as a trace, or not; what is not sampled costs a lock and a comparison."""
        slow = _own_seconds(work) > self._slow_s
        with self._lock:
            seen = self._seen.get(work.name, 0)
            self._seen[work.name] = seen + 1
            if seen % _EVERY and not slow:
                return
            second = int(work.ended)
            if second != self._second:
                self._second, self._sent = second, 0
            self._sent += 1
            room = self._sent <= _PER_SECOND
        if not room or not self._offer(self._encoded(work)):
            self._books.mark("self-traces left out")

    def _encoded(self, work: Work) -> bytes:
        request = ExportTraceServiceRequest()
        group = request.resource_spans.add(schema_url=semconv.SCHEMA_URL)
        group.resource.attributes.extend(attribute(k, v) for k, v in self._resource.items())
        scope = group.scope_spans.add()
        scope.scope.name = semconv.SCOPE_NAME
        seconds, unix_ns = self._clocks()

        def at(moment: float) -> int:
            return unix_ns - round((seconds - moment) * 1e9)

        trace_id = random.getrandbits(128).to_bytes(16, "big")
        root = _add(scope, trace_id, b"", work.name)
        root.kind = _KINDS.get(work.name, Span.SPAN_KIND_INTERNAL)
        root.start_time_unix_nano, root.end_time_unix_nano = at(work.began), at(work.ended)
        root.attributes.extend(
            attribute(_ATTRIBUTES + key, value) for key, value in work.attributes.items()
        )
        began = work.began
        for name, ended in work.laps:
            span = _add(scope, trace_id, root.span_id, name)
            span.kind = Span.SPAN_KIND_INTERNAL
            span.start_time_unix_nano, span.end_time_unix_nano = at(began), at(ended)
            began = ended
        return request.SerializeToString()


def _own_seconds(work: Work) -> float:
    """Returns the work's duration without the wait for other ranks, which comes first."""
    waited = work.laps[0][1] if work.laps and work.laps[0][0] == "assemble" else work.began
    return work.ended - waited


def _add(scope: ScopeSpans, trace_id: bytes, parent: bytes, name: str) -> Span:
    span_id = random.getrandbits(64).to_bytes(8, "big")
    return scope.spans.add(trace_id=trace_id, span_id=span_id, parent_span_id=parent, name=name)
