"""Hand-packed requests: what OpenTelemetry's own classes read is what was said."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from kat_otel import semconv
from kat_otel.instrumentation.hardware.metrics import Measure, pack_metrics

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TIMES = st.integers(1, 2**63 - 1)
VALUES = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
LABELS = st.dictionaries(TEXTS, TEXTS | st.integers(-(2**63), 2**63 - 1), max_size=4)
SCALARS = TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=20)


def plain(attributes) -> dict:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


def read(data: bytes):
    (group,) = ExportMetricsServiceRequest.FromString(data).resource_metrics
    return group, {m.name: m for scope in group.scope_metrics for m in scope.metrics}


@given(st.data(), st.dictionaries(TEXTS, SCALARS | st.floats(allow_nan=False), max_size=6))
def test_what_is_packed_is_what_protobuf_reads(data, resource):
    names = data.draw(st.lists(TEXTS, min_size=1, max_size=5, unique=True))
    said = [
        Measure(name, value, labels, kind, unit, at, start)
        for name in names
        for kind, unit in [data.draw(st.tuples(st.sampled_from(["gauge", "sum"]), TEXTS))]
        for value, labels, at, start in data.draw(
            st.lists(st.tuples(VALUES, LABELS, TIMES, TIMES), min_size=1, max_size=4)
        )
    ]
    group, metrics = read(pack_metrics([(resource, said)], start_ns=1, now_ns=2))
    assert plain(group.resource.attributes) == resource
    assert [scope.scope.name for scope in group.scope_metrics] == [semconv.SCOPE_NAME]
    assert group.schema_url == semconv.SCHEMA_URL
    assert list(metrics) == names
    read_back = []
    for name, metric in metrics.items():
        kind = metric.WhichOneof("data")
        for point in getattr(metric, kind).data_points:
            value = getattr(point, point.WhichOneof("value"))
            start = point.start_time_unix_nano
            labels = plain(point.attributes)
            read_back.append(
                Measure(name, value, labels, kind, metric.unit, point.time_unix_nano, start)
            )
    assert read_back == [m if m.kind == "sum" else m._replace(start_ns=0) for m in said]


def test_a_sum_only_grows_and_counts_since_its_start():
    data = pack_metrics([({}, [Measure("n", 3, kind="sum")])], start_ns=10, now_ns=20)
    total = read(data)[1]["n"].sum
    assert total.is_monotonic
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert total.aggregation_temporality == cumulative
    (point,) = total.data_points
    assert (point.start_time_unix_nano, point.time_unix_nano, point.as_int) == (10, 20, 3)


@pytest.mark.parametrize(("value", "read_as"), [(2**80, 2**63 - 1), (-(2**80), -(2**63))])
def test_an_integer_that_is_too_large_is_cut(value, read_as):
    data = pack_metrics([({}, [Measure("n", value)])], start_ns=1, now_ns=2)
    assert read(data)[1]["n"].gauge.data_points[0].as_int == read_as


def test_what_is_no_number_and_no_text_is_carried_as_it_can_be():
    said = [Measure("n\udc80", math.nan, {"a\udc80": "b\udc80"})]
    _, metrics = read(pack_metrics([({"h\udc80": "x"}, said)], start_ns=1, now_ns=2))
    (metric,) = metrics.values()
    assert metric.name == "n\\udc80"
    assert math.isnan(metric.gauge.data_points[0].as_double)


def test_nothing_said_is_no_request_and_an_empty_group_is_left_out():
    assert pack_metrics([], start_ns=1, now_ns=2) == b""
    assert pack_metrics([({"a": "b"}, [])], start_ns=1, now_ns=2) == b""
    data = pack_metrics([({"a": "b"}, []), ({"c": "d"}, [Measure("n", 1)])], start_ns=1, now_ns=2)
    assert plain(read(data)[0].resource.attributes) == {"c": "d"}
