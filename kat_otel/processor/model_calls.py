"""Spans and metrics of the calls to a model, by OpenTelemetry's GenAI instrumentation.

It makes them with the SDK; they leave through the exporter that is there, whose TLS, headers and
retries serve them, too. What was said to the model is in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from kat_otel import semconv
from kat_otel.analyzer.telemetry import instrument, uninstrument
from kat_otel.processor.exporter import Payload

__all__ = ["ModelCalls"]

_SERVICE: Final = "kat-process"
_END_MS: Final = 500

Send = Callable[[Payload], bool]


class ModelCalls:
    """From :meth:`start` to :meth:`stop`, all calls of this process.

    Args:
        send: takes a request if there is room; what finds none is left out.
        metrics_interval: seconds between two exports of metrics; 0 sends none.
        traces: whether spans are sent.
    """

    def __init__(self, send: Send, *, metrics_interval: float, traces: bool) -> None:
        self._send = send
        self._interval_ms = metrics_interval * 1e3
        self._traces = traces
        self._providers: tuple[TracerProvider, MeterProvider] | None = None

    def start(self) -> None:
        """Has calls make spans and metrics from now on."""
        resource = Resource({semconv.SERVICE_NAME: _SERVICE})
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        if self._traces:
            tracers.add_span_processor(SimpleSpanProcessor(_Spans(self._send)))
        every, sender = self._interval_ms, _Metrics(self._send)
        readers = [PeriodicExportingMetricReader(sender, every)] if every else []
        meters = MeterProvider(readers, resource, shutdown_on_exit=False)
        instrument(tracers, meters)
        self._providers = tracers, meters

    def stop(self) -> None:
        """Sends the last metrics; calls make nothing any more."""
        if self._providers is None:
            return
        tracers, meters = self._providers
        uninstrument()
        tracers.shutdown()
        meters.shutdown(_END_MS)


class _Spans(SpanExporter):
    def __init__(self, send: Send) -> None:
        self._send = send

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        taken = self._send(Payload("traces", encode_spans(spans).SerializeToString(), own=True))
        return SpanExportResult.SUCCESS if taken else SpanExportResult.FAILURE


class _Metrics(MetricExporter):
    def __init__(self, send: Send) -> None:
        super().__init__()
        self._offer = send

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 0, **kwargs: Any
    ) -> MetricExportResult:
        del timeout_millis, kwargs
        data = encode_metrics(metrics_data).SerializeToString()
        taken = self._offer(Payload("metrics", data, own=True))
        return MetricExportResult.SUCCESS if taken else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 0) -> bool:
        del timeout_millis
        return True

    def shutdown(self, timeout_millis: float = 0, **kwargs: Any) -> None:
        del timeout_millis, kwargs
