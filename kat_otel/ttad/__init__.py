"""Trace tree anomaly detection: align, measure, expect, score, walk to the cause, price it.

Read :mod:`kat_otel.ttad.detector` first: it alone gives the order of the steps.
"""

from kat_otel.ttad.detector import Detector, analyze
from kat_otel.ttad.settings import Settings

__all__ = ["Detector", "Settings", "analyze"]
