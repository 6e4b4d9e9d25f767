"""Why it is slow and what to do: the embedded diagnosis of an incident.

Everything a person may want to change stands in ``knowledge.yaml``, which ``diagnose.py`` applies.
"""

from __future__ import annotations

from kat_otel.analyzer.diagnose import action_text, diagnose, with_diagnoses
from kat_otel.analyzer.diagnosis import Claim, Diagnosis, Hypothesis
from kat_otel.analyzer.knowledge import Knowledge, embedded, load

__all__ = [
    "Claim",
    "Diagnosis",
    "Hypothesis",
    "Knowledge",
    "action_text",
    "diagnose",
    "embedded",
    "load",
    "with_diagnoses",
]
