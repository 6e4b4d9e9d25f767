"""Log events and metrics as OTLP requests; few leave, so the protobuf library packs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as WireResource

from kat_otel import semconv
from kat_otel.otlp.wire import WireValue, attribute

__all__ = ["Exemplar", "Gauge", "Histogram", "LogEvent", "Sum", "encode_logs", "encode_metrics"]

Labels = tuple[tuple[str, str | int | bool], ...]
"""Attributes of a metric point, sorted; never a raw kernel name."""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """A log record with an event name.

    Attributes:
        name: the event's name.
        time_ns: when it happened, Unix ns.
        observed_ns: when it was found, Unix ns.
        body: the sentence a person reads.
        attributes: scalars or lists.
        warning: severity WARN, else INFO.
        trace_id, span_id: what it speaks of, or empty.
    """

    name: str
    time_ns: int
    observed_ns: int
    body: str
    attributes: Mapping[str, WireValue]
    warning: bool = False
    trace_id: bytes = b""
    span_id: bytes = b""


def encode_logs(resource: Mapping[str, WireValue], events: Sequence[LogEvent]) -> bytes:
    """Returns the bytes of an ExportLogsServiceRequest."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add(resource=_resource(resource), schema_url=semconv.SCHEMA_URL)
    scope = group.scope_logs.add(scope=InstrumentationScope(name=semconv.SCOPE_NAME))
    for event in events:
        record = scope.log_records.add(
            time_unix_nano=event.time_ns,
            observed_time_unix_nano=event.observed_ns,
            severity_number=13 if event.warning else 9,  # type: ignore[arg-type]
            severity_text="WARN" if event.warning else "INFO",
            event_name=event.name,
            trace_id=event.trace_id,
            span_id=event.span_id,
            attributes=[attribute(key, value) for key, value in event.attributes.items()],
        )
        record.body.string_value = event.body
    return request.SerializeToString()


@dataclass(frozen=True, slots=True)
class Gauge:
    """The last value of something, by labels."""

    name: str
    unit: str
    description: str
    points: Mapping[Labels, float]


@dataclass(frozen=True, slots=True)
class Sum:
    """A count or a time since start that only grows, by labels."""

    name: str
    unit: str
    description: str
    points: Mapping[Labels, float]


class Exemplar(NamedTuple):
    """One observation of a histogram, by which a reader gets from a curve to a trace."""

    value: float
    time_ns: int
    trace_id: bytes


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts since start by bucket; ``points`` holds (counts, sum) with len(bounds) + 1 counts.

    ``exemplars`` holds single observations by the labels of their point.
    """

    name: str
    unit: str
    description: str
    bounds: Sequence[float]
    points: Mapping[Labels, tuple[Sequence[int], float]]
    exemplars: Mapping[Labels, Sequence[Exemplar]] = field(
        default_factory=dict[Labels, Sequence[Exemplar]]
    )


def encode_metrics(
    resource: Mapping[str, WireValue],
    metrics: Sequence[Gauge | Sum | Histogram],
    *,
    start_ns: int,
    now_ns: int,
) -> bytes:
    """Returns the bytes of an ExportMetricsServiceRequest with cumulative points.

    Args:
        resource: attributes of the resource.
        metrics: the metrics; those without points are left out.
        start_ns: since when sums and histograms count, Unix ns.
        now_ns: time of the points, Unix ns.
    """
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add(
        resource=_resource(resource), schema_url=semconv.SCHEMA_URL
    )
    scope = group.scope_metrics.add(scope=InstrumentationScope(name=semconv.SCOPE_NAME))
    for metric in metrics:
        if metric.points:
            _add_metric(scope, metric, start_ns, now_ns)
    return request.SerializeToString()


def _add_metric(
    scope: ScopeMetrics, metric: Gauge | Sum | Histogram, start_ns: int, now_ns: int
) -> None:
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    out = scope.metrics.add(name=metric.name, unit=metric.unit, description=metric.description)
    if isinstance(metric, Gauge):
        for labels, value in metric.points.items():
            out.gauge.data_points.add(
                attributes=_labels(labels), time_unix_nano=now_ns, as_double=value
            )
    elif isinstance(metric, Sum):
        out.sum.is_monotonic = True
        out.sum.aggregation_temporality = cumulative
        for labels, count in metric.points.items():
            point = out.sum.data_points.add(
                attributes=_labels(labels), start_time_unix_nano=start_ns, time_unix_nano=now_ns
            )
            if isinstance(count, int):
                point.as_int = count
            else:
                point.as_double = count
    else:
        out.histogram.aggregation_temporality = cumulative
        for labels, (counts, total) in metric.points.items():
            point = out.histogram.data_points.add(
                attributes=_labels(labels),
                start_time_unix_nano=start_ns,
                time_unix_nano=now_ns,
                count=sum(counts),
                sum=total,
                bucket_counts=counts,
                explicit_bounds=metric.bounds,
            )
            for one in metric.exemplars.get(labels, ()):
                point.exemplars.add(
                    as_double=one.value, time_unix_nano=one.time_ns, trace_id=one.trace_id
                )


def _labels(labels: Labels) -> list[KeyValue]:
    return [attribute(key, value) for key, value in labels]


def _resource(attributes: Mapping[str, WireValue]) -> WireResource:
    return WireResource(attributes=[attribute(key, value) for key, value in attributes.items()])
