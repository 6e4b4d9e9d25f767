"""The names that the collector's Prometheus exporter gives, as its translator's tests have them."""

import pytest

from kat_otel.otlp.prometheus_names import label_name, metric_name
from kat_otel.otlp.signals import Gauge, Histogram, Sum


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (Histogram("kat.step.duration", "s", "", (), {}), "kat_step_duration_seconds"),
        (Sum("kat.incidents", "{incident}", "", {}), "kat_incidents_total"),
        (Sum("kat.gpu.lost_time", "s", "", {}), "kat_gpu_lost_time_seconds_total"),
        (Gauge("kat.incident.impact", "s", "", {}), "kat_incident_impact_seconds"),
        (Gauge("gpu.use", "1", "", {}), "gpu_use_ratio"),
        (Sum("total.requests", "1", "", {}), "requests_total"),
        (Gauge("wait.seconds", "s", "", {}), "wait_seconds"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_name_has_its_units_and_its_types_suffix_once(metric, name):
    assert metric_name(metric) == name


def test_a_unit_without_a_known_name_is_an_error_that_names_the_metric():
    with pytest.raises(ValueError, match=r"kat\.power.*'W'"):
        metric_name(Gauge("kat.power", "W", "", {}))


def test_a_label_is_an_attribute_with_underscores():
    assert label_name("kat.instance.id") == "kat_instance_id"
