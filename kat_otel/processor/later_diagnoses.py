"""A diagnosis that comes after its incident has left, as a span of its own and as a log event.

What was exported is never changed. The span stands in a trace of its own, as it would stretch the
step's by the minutes that an answer may take; a link leads to the culprit's span, and both have the
incident's id.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from kat_otel import semconv
from kat_otel.analyzer import Diagnosis
from kat_otel.otlp.signals import LogEvent, encode_logs
from kat_otel.otlp.wire import WireValue, attribute
from kat_otel.processor.mark import diagnosis_attributes
from kat_otel.processor.questions import Question

__all__ = ["Later", "encode_later"]


class Later(NamedTuple):
    """A model's diagnosis of an incident.

    Attributes:
        diagnosis: as ``kat.report/v1`` holds it.
        revision: 1 for the first of its incident.
        begin_ns, end_ns: when the model was asked, and when its answer was taken; Unix ns.
    """

    diagnosis: Diagnosis
    revision: int
    begin_ns: int
    end_ns: int


def encode_later(question: Question, later: Later, said: dict[str, object]) -> tuple[bytes, bytes]:
    """Returns the requests of traces and of logs that tell a diagnosis.

    Sent twice they have the same ids: these come from the incident and the facts it was made of.

    Args:
        question: about which incident, and where its culprit's span is.
        later: what the model made of it.
        said: the diagnosis as plain values.
    """
    incident, diagnosis = question.incident, later.diagnosis
    told: dict[str, WireValue] = {
        **diagnosis_attributes(incident.id, said, revision=later.revision),
        semconv.KIND: incident.kind,
        semconv.PAGE: incident.page,
        semconv.CULPRIT_RANKS: list(diagnosis.culprit_ranks),
        semconv.MODEL: diagnosis.model,
        semconv.PROMPT_VERSION: diagnosis.prompt,
        semconv.FINGERPRINT: diagnosis.fingerprint,
    }
    resource: dict[str, WireValue] = {
        semconv.SERVICE_NAME: "kat",
        semconv.INSTANCE_ID: question.instance,
    }
    event = LogEvent(
        name=semconv.EVENT_DIAGNOSIS,
        time_ns=later.end_ns,
        observed_ns=later.end_ns,
        body=diagnosis.summary,
        attributes=told,
        trace_id=question.trace_id,
        span_id=question.span_id,
    )
    return _trace(question, later, told, resource), encode_logs(resource, [event])


def _trace(
    question: Question, later: Later, told: dict[str, WireValue], resource: dict[str, WireValue]
) -> bytes:
    ground = f"{question.incident.id}\n{later.diagnosis.fingerprint}\n{later.diagnosis.model}"
    ids = hashlib.blake2b(ground.encode(), digest_size=24).digest()
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add(schema_url=semconv.SCHEMA_URL)
    group.resource.attributes.extend(attribute(key, value) for key, value in resource.items())
    scope = group.scope_spans.add()
    scope.scope.name = semconv.SCOPE_NAME
    span = scope.spans.add(
        trace_id=ids[:16],
        span_id=ids[16:],
        name=semconv.EVENT_DIAGNOSIS,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=later.begin_ns,
        end_time_unix_nano=max(later.end_ns, later.begin_ns + 1),
        attributes=[attribute(key, value) for key, value in told.items()],
    )
    if question.span_id:
        span.links.add(
            trace_id=question.trace_id,
            span_id=question.span_id,
            attributes=[attribute(semconv.ROLE, "culprit")],
        )
    return request.SerializeToString()
