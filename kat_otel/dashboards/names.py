"""What the panels ask for: every series and label by its name in Prometheus, written once.

What leaves over OTLP is named by :mod:`kat_otel.semconv` and translated as the collector's exporter
does; what the processor says of itself is held to :data:`kat_otel.processor.prometheus.METRICS`;
the engines' own metrics are named as vLLM and SGLang do. A test holds every query to these.
"""

from __future__ import annotations

from typing import Final

from kat_otel import semconv
from kat_otel.otlp.prometheus_names import label_name, metric_name
from kat_otel.otlp.signals import Gauge, Histogram, Sum
from kat_otel.processor.prometheus import METRICS

__all__ = ["OWN", "own"]

# --- labels --------------------------------------------------------------------------------
INSTANCE: Final = label_name(semconv.INSTANCE_ID)
RANK: Final = label_name(semconv.RANK)
KIND: Final = label_name(semconv.KIND)
COMPONENT: Final = label_name(semconv.COMPONENT)
PAGE: Final = label_name(semconv.PAGE)
HOST: Final = label_name(semconv.HOST_NAME)
RACK: Final = label_name(semconv.RACK)
SWITCH: Final = label_name(semconv.SWITCH)
GPU: Final = label_name(semconv.HARDWARE_ID)
PART: Final = label_name(semconv.PART)

# --- what is found out about the fleet, over OTLP -------------------------------------------
STEP: Final = metric_name(Histogram(semconv.METRIC_STEP_DURATION, "s", "", (), {}))
SKEW: Final = metric_name(Histogram(semconv.METRIC_ARRIVAL_SKEW, "s", "", (), {}))
INCIDENTS: Final = metric_name(Sum(semconv.METRIC_INCIDENTS, "{incident}", "", {}))
IMPACT: Final = metric_name(Gauge(semconv.METRIC_IMPACT, "s", "", {}))
LOST: Final = metric_name(Sum(semconv.METRIC_LOST_TIME, "s", "", {}))
CAUSED: Final = metric_name(Sum(semconv.METRIC_CAUSED_TIME, "s", "", {}))
PARTS: Final = metric_name(Sum(semconv.METRIC_STEP_TIME, "s", "", {}))
INFO: Final = metric_name(Gauge(semconv.METRIC_RANK_INFO, "", "", {}))


def own(name: str) -> str:
    """Returns a metric of the processor's own ``/metrics``, by what stands behind the prefix.

    Raises:
        KeyError: the processor has none of that name.
    """
    whole = f"kat_processor_{name}"
    if whole not in OWN:
        raise KeyError(f"{whole}: no metric of kat_otel.processor.prometheus.METRICS")
    return whole


OWN: Final = {metric.name: metric for metric in METRICS}
