"""What the metrics say of lateness at collectives, and of the GPU time that incidents cost."""

import re
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from kat_otel import semconv
from kat_otel.otlp.prometheus_names import label_name, metric_name
from kat_otel.otlp.signals import Gauge, Histogram, Sum
from kat_otel.processor import measure
from kat_otel.processor.measure import Measurements, arrival_lateness
from kat_otel.processor.step_parts import PARTS
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder
from kat_otel.telemetry import Explanations, Telemetry
from kat_otel.verdict import Culprit, Incident


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


def incident(occurrences: int, mean_ns: int, *, status: str = "ongoing", ranks: tuple = (2,)):
    return Incident(
        id="a1",
        status=status,
        first_seen=0,
        last_seen=0,
        occurrences=occurrences,
        steps=[],
        page=False,
        kind="late_launch",
        scope="rank",
        culprit=Culprit(ranks=list(ranks), devices=[], hosts=[], sure=True),
        victims=[],
        group=None,
        link=None,
        component="host_cpu",
        component_candidates=[],
        component_confidence=0.7,
        impact_ns=mean_ns,
        score=9.0,
        false_alarm_probability=1e-6,
        spans=[],
        evidence=[],
    )


def sums(measurements: Measurements, name: str) -> dict[tuple, float]:
    """Values of a metric by its labels' values, without the instance."""
    data = measurements.encode(Telemetry(), 1)
    (scope,) = ExportMetricsServiceRequest.FromString(data).resource_metrics[0].scope_metrics
    (metric,) = (m for m in scope.metrics if m.name == name)
    assert metric.sum.is_monotonic
    return {
        tuple(
            pair.value.string_value or pair.value.int_value
            for pair in point.attributes
            if pair.key != semconv.INSTANCE_ID
        ): point.as_double
        for point in metric.sum.data_points
    }


def working(ranks: int = 4) -> Measurements:
    measurements = Measurements(0)
    where = {semconv.RACK: "r7", semconv.SWITCH: "leaf-3", "other": "x"}
    workers = tuple(
        Resource(rank=rank, host="h1", hardware_id=f"GPU-{rank}", attributes=where)
        for rank in range(ranks)
    )
    measurements.workers("a", workers)
    return measurements


def test_lost_time_is_told_as_nothing_before_anything_is_lost():
    measurements = working()
    assert set(sums(measurements, semconv.METRIC_LOST_TIME).values()) == {0.0}
    assert ("host_cpu",) in sums(measurements, semconv.METRIC_LOST_TIME)
    assert sums(measurements, semconv.METRIC_CAUSED_TIME) == {
        (rank, "h1", "r7", "leaf-3"): 0.0 for rank in range(4)
    }


def test_a_step_loses_an_incidents_impact_on_each_of_its_ranks():
    measurements = working()
    # 10 ms, then 20 ms, of which the incident tells the mean; then it is over
    measurements.loss("a", incident(1, 10_000_000, status="open"), 4)
    measurements.loss("a", incident(2, 15_000_000), 4)
    measurements.loss("a", incident(2, 15_000_000, status="resolved"), 4)
    lost = sums(measurements, semconv.METRIC_LOST_TIME)
    assert lost.pop(("host_cpu",)) == pytest.approx(0.120)
    assert set(lost.values()) == {0.0}
    caused = sums(measurements, semconv.METRIC_CAUSED_TIME)
    assert caused[2, "h1", "r7", "leaf-3"] == pytest.approx(0.120)
    assert sum(caused.values()) == pytest.approx(0.120)


def test_several_culprits_share_what_they_caused():
    measurements = working()
    measurements.loss("a", incident(1, 10_000_000, status="open", ranks=(1, 2)), 4)
    caused = sums(measurements, semconv.METRIC_CAUSED_TIME)
    assert [caused[rank, "h1", "r7", "leaf-3"] for rank in range(4)] == [0, 0.02, 0.02, 0]


def test_an_incident_from_before_a_restart_loses_again_only_what_it_costs_now():
    measurements = working()
    measurements.loss("a", incident(1000, 10_000_000), 4)
    assert sums(measurements, semconv.METRIC_LOST_TIME)["host_cpu",] == pytest.approx(0.040)


def test_the_parts_of_a_step_are_told_by_rank_and_added_up():
    measurements = working()
    split = {0: {"compute": 5e8, "wait": 1e9, "transfer": 2e8, "host": 0}}
    measurements.parts("a", split)
    measurements.parts("a", split)
    assert sums(measurements, semconv.METRIC_STEP_TIME) == {
        ("compute", 0): 1.0,
        ("wait", 0): 2.0,
        ("transfer", 0): 0.4,
        ("host", 0): 0.0,
    }


def test_one_step_of_an_instance_is_split_every_five_seconds():
    measurements = Measurements(0)
    asked = [("a", 0.0), ("b", 0.1), ("a", 4.9), ("a", 5.0), ("a", 5.1)]
    assert [measurements.wants_parts(*one) for one in asked] == [True, True, False, True, False]


def test_the_last_step_of_each_bucket_leads_to_its_trace():
    measurements = Measurements(0)
    for duration_ms, trace_id in [(3, "aa" * 16), (4, "bb" * 16), (30, "cc" * 16), (3, "")]:
        measurements.step("a", duration_ms * 1_000_000, {}, trace_id)
    data = measurements.encode(Telemetry(), 1)
    (scope,) = ExportMetricsServiceRequest.FromString(data).resource_metrics[0].scope_metrics
    (steps,) = (m for m in scope.metrics if m.name == semconv.METRIC_STEP_DURATION)
    (point,) = steps.histogram.data_points
    assert {(one.as_double, one.trace_id) for one in point.exemplars} == {
        (0.004, b"\xbb" * 16),
        (0.030, b"\xcc" * 16),
    }


def test_an_instance_that_is_gone_has_no_series():
    measurements = working()
    measurements.forget("a")
    measurements.workers("b", (Resource(rank=0),))
    assert sums(measurements, semconv.METRIC_CAUSED_TIME) == {(0,): 0.0}


def test_the_documentation_lists_every_metric_with_its_labels_and_meaning():
    measurements, telemetry = working(), Telemetry()
    found = incident(1, 10_000_000, status="open")
    measurements.step("a", 1_000, {0: 5})
    measurements.incident("a", found, new=True)
    measurements.parts("a", {0: dict.fromkeys(PARTS, 1)})
    telemetry.books.count("dropped", 1, "late")
    data = measurements.encode(telemetry, 1)
    (scope,) = ExportMetricsServiceRequest.FromString(data).resource_metrics[0].scope_metrics
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    _, _, fleet = page.partition("## What it finds out about the fleet")
    assert _rows(fleet) == {_row(metric) for metric in scope.metrics}


def _rows(text: str) -> set[tuple[str, str, tuple[str, ...], str]]:
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if "| `" in line]
    return {
        (n.strip("`"), kind, (*re.findall("`(.+?)`", ls),), said) for n, kind, ls, said in cells
    }


def _row(metric) -> tuple[str, str, tuple[str, ...], str]:
    kinds = {"sum": (Sum, "counter"), "gauge": (Gauge, "gauge")}
    told = metric.WhichOneof("data")
    labels = {pair.key for p in getattr(metric, told).data_points for pair in p.attributes}
    if told == "histogram":
        made, kind = Histogram(metric.name, metric.unit, "", (), {}), "histogram"
    else:
        make, kind = kinds[told]
        made = make(metric.name, metric.unit, "", {})
    return metric_name(made), kind, (*sorted(map(label_name, labels)),), metric.description


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
