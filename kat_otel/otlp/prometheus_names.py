"""What Prometheus calls an OTLP metric, after the collector's exporter has translated it.

The collector's ``prometheus`` exporter, with its defaults, escapes and adds suffixes for unit and
type (``UnderscoreEscapingWithSuffixes``). Whoever writes a query takes the name from here.
"""

from __future__ import annotations

import re
from typing import Final

from kat_otel.otlp.signals import Gauge, Histogram, Sum

__all__ = ["label_name", "metric_name"]

_UNITS: Final = {"s": "seconds", "ms": "milliseconds", "ns": "nanoseconds", "By": "bytes", "1": ""}
_INVALID: Final = re.compile(r"[^A-Za-z0-9:]+")


def metric_name(metric: Gauge | Sum | Histogram) -> str:
    """Returns a metric's name in Prometheus; a histogram's has ``_bucket`` and so on behind it.

    The rules are those of ``github.com/prometheus/otlptranslator`` 1.0, for the units that this
    package uses; what stands in braces is no unit.

    Raises:
        ValueError: the unit is none of them.
    """
    words = _INVALID.sub(" ", metric.name).split()
    unit = "" if metric.unit.startswith("{") else metric.unit
    if unit and unit not in _UNITS:
        raise ValueError(
            f"metric {metric.name}: no name in Prometheus is known for the unit {metric.unit!r}: "
            f"add it to _UNITS in {__name__}, as otlptranslator has it"
        )
    suffix = _UNITS.get(unit, "")
    if suffix and suffix not in words:
        words.append(suffix)
    if isinstance(metric, Sum):
        words = [*(word for word in words if word != "total"), "total"]
    elif isinstance(metric, Gauge) and unit == "1":
        words = [*(word for word in words if word != "ratio"), "ratio"]
    return "_".join(words)


def label_name(attribute: str) -> str:
    """Returns the label that an attribute becomes: ``kat.instance.id`` is ``kat_instance_id``."""
    return _INVALID.sub("_", attribute)
