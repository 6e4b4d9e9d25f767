"""Incidents, and what is said of them, as OTLP log events: a sentence, and facts as attributes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import MappingProxyType

from kat_otel import semconv
from kat_otel.operators import Feedback, Silence
from kat_otel.otlp.signals import LogEvent, encode_logs
from kat_otel.processor.mark import incident_attributes
from kat_otel.processor.sentence import summary_of
from kat_otel.processor.silences import Silenced
from kat_otel.verdict import Incident

__all__ = ["encode_events", "encode_feedback"]


def encode_events(
    instance: str, incidents: Sequence[Incident], silenced: Silenced = MappingProxyType({})
) -> bytes:
    """Returns the request that tells of an instance's incidents, and what silences them."""
    resource = {semconv.SERVICE_NAME: "kat", semconv.INSTANCE_ID: instance}
    return encode_logs(resource, [_event(one, silenced.get(one.id)) for one in incidents])


def encode_feedback(feedback: Feedback, incident: Incident) -> bytes:
    """Returns the request that tells what an operator said of an incident."""
    resource = {semconv.SERVICE_NAME: "kat", semconv.INSTANCE_ID: feedback.instance}
    trace_id, span_id = _span_of(incident)
    event = LogEvent(
        name=semconv.EVENT_FEEDBACK,
        time_ns=feedback.at_unix_nano,
        observed_ns=feedback.at_unix_nano,
        body=f"an operator calls the incident {feedback.verdict}: {summary_of(incident)}",
        attributes={
            semconv.INCIDENT_ID: incident.id,
            semconv.VERDICT: feedback.verdict,
            semconv.NOTE: feedback.note,
            semconv.BY: feedback.by,
            semconv.KIND: incident.kind,
            semconv.COMPONENT: incident.component,
            semconv.CULPRIT_RANKS: list(incident.culprit.ranks),
        },
        trace_id=trace_id,
        span_id=span_id,
    )
    return encode_logs(resource, [event])


def _event(incident: Incident, silence: Silence | None) -> LogEvent:
    trace_id, span_id = _span_of(incident)
    return LogEvent(
        name=semconv.EVENT_INCIDENT,
        time_ns=incident.last_seen,
        observed_ns=time.time_ns(),
        body=summary_of(incident),
        attributes=incident_attributes(incident, silence),
        warning=incident.page and incident.status != "resolved",
        trace_id=trace_id,
        span_id=span_id,
    )


def _span_of(incident: Incident) -> tuple[bytes, bytes]:
    """Returns the trace and span id of the first span that the verdict cites, or empty ones."""
    if not incident.spans:
        return b"", b""
    span = incident.spans[0]
    return bytes.fromhex(span.trace_id), bytes.fromhex(span.span_id)
