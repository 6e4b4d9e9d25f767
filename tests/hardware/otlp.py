"""Requests as collectors send them, made point by point."""

from __future__ import annotations

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from kat_otel.otlp.wire import attribute

DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def metric_request(
    name: str,
    points: list[tuple[int, float]],
    *,
    kind: str = "gauge",
    temporality: int = CUMULATIVE,
    resource: dict | None = None,
    labels: dict | None = None,
) -> bytes:
    """A request with one metric; ``points`` are (Unix ns, value)."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.extend(attribute(k, v) for k, v in (resource or {}).items())
    metric = group.scope_metrics.add().metrics.add(name=name)
    data = getattr(metric, kind)
    if kind == "sum":
        data.aggregation_temporality = temporality
        data.is_monotonic = True
    for at, value in points:
        point = data.data_points.add(time_unix_nano=at)
        if kind in {"gauge", "sum"}:
            point.as_double = value
        point.attributes.extend(attribute(k, v) for k, v in (labels or {}).items())
    return request.SerializeToString()


def log_request(line: str, at: int, *, host: str = "node-0", **resource) -> bytes:
    """A request with one line of a log."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    said = {"host.name": host, **resource}
    group.resource.attributes.extend(attribute(k, v) for k, v in said.items() if v)
    group.scope_logs.add().log_records.add(time_unix_nano=at).body.string_value = line
    return request.SerializeToString()
