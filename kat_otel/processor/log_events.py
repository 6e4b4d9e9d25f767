"""Incidents as OTLP log events: the sentence as body, the report's facts as attributes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kat_otel import semconv
from kat_otel.otlp.signals import LogEvent, encode_logs
from kat_otel.processor.mark import incident_attributes
from kat_otel.processor.sentence import summary_of
from kat_otel.verdict import Incident

__all__ = ["encode_events"]


def encode_events(instance: str, incidents: Sequence[Incident]) -> bytes:
    """Returns the request that tells of an instance's incidents."""
    resource = {semconv.SERVICE_NAME: "kat", semconv.INSTANCE_ID: instance}
    return encode_logs(resource, [_event(incident) for incident in incidents])


def _event(incident: Incident) -> LogEvent:
    span = incident.spans[0] if incident.spans else None
    return LogEvent(
        name=semconv.EVENT_INCIDENT,
        time_ns=incident.last_seen,
        observed_ns=time.time_ns(),
        body=summary_of(incident),
        attributes=incident_attributes(incident),
        warning=incident.page and incident.status != "resolved",
        trace_id=bytes.fromhex(span.trace_id) if span else b"",
        span_id=bytes.fromhex(span.span_id) if span else b"",
    )
