"""What the metrics say of lateness at collectives."""

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from kat_otel import semconv
from kat_otel.processor import measure
from kat_otel.processor.measure import Measurements, arrival_lateness
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder
from kat_otel.telemetry import Explanations, Telemetry


def collectives(starts: dict[int, list[int]], name: str = "ncclDevKernel_AllReduce") -> SpanTable:
    builder = SpanTableBuilder()
    index = builder.strings.add(name)
    for rank, times in starts.items():
        resource = builder.add_resource(Resource(rank=rank))
        builder.append(
            len(times),
            start_ns=np.array(times),
            duration_ns=10,
            name=index,
            kind=SpanKind.COLLECTIVE,
            resource=resource,
        )
    return builder.build()


def test_lateness_is_the_median_over_the_collectives_after_the_earliest_rank():
    table = collectives({0: [100, 200, 300], 1: [130, 230, 900], 2: [101, 202, 303]})
    assert arrival_lateness(table) == {0: 0, 1: 30, 2: 2}


@pytest.mark.parametrize(
    "table",
    [
        collectives({}),
        collectives({0: [1, 2]}),
        collectives({0: [1, 2], 1: [1]}),
        collectives({0: [1], 1: [5]}, name="ncclDevKernel_SendRecv"),
    ],
    ids=["none", "one rank", "unequal counts", "no barrier"],
)
def test_what_cannot_be_compared_has_no_lateness(table):
    assert arrival_lateness(table) == {}


def test_series_are_bounded_the_longest_silent_go_and_are_counted(monkeypatch):
    monkeypatch.setattr(measure, "_MOST_SERIES", 10)
    measurements, telemetry = Measurements(0), Telemetry()
    for rank in range(100):
        measurements.step("a", 1_000, {0: 5, rank: 5})
    data = measurements.encode(telemetry, 1)
    (scope,) = ExportMetricsServiceRequest.FromString(data).resource_metrics[0].scope_metrics
    (skew,) = (m for m in scope.metrics if m.name == semconv.METRIC_ARRIVAL_SKEW)
    ranks = {
        pair.value.int_value
        for point in skew.histogram.data_points
        for pair in point.attributes
        if pair.key == semconv.RANK
    }
    assert ranks == {0, *range(91, 100)}
    assert telemetry.books.marked("metric series forgotten") == 90


def test_what_asking_a_model_came_to_is_told_where_one_is_asked():
    telemetry = Telemetry()
    assert b"kat.analyzer" not in Measurements(0).encode(telemetry, 1)
    telemetry.explanations = Explanations()
    telemetry.explanations.count("rejected", ["no_json", "truncated"])
    telemetry.gauges.set("questions", lambda: 3)
    request = ExportMetricsServiceRequest.FromString(Measurements(0).encode(telemetry, 1))
    metrics = {m.name: m for m in request.resource_metrics[0].scope_metrics[0].metrics}
    (point,) = metrics["kat.analyzer.explanations"].sum.data_points
    assert (point.attributes[0].value.string_value, point.as_int) == ("rejected", 1)
    reasons = metrics["kat.analyzer.rejections"].sum.data_points
    assert {p.attributes[0].value.string_value for p in reasons} == {"no_json", "truncated"}
    assert metrics["kat.analyzer.queue"].gauge.data_points[0].as_double == 3
