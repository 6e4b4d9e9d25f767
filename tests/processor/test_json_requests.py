"""OTLP's JSON says what its protobuf says."""

import json

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel.errors import DecodeError
from kat_otel.otlp import encode_traces
from kat_otel.processor.json_requests import protobuf_of_json

TRACE, SPAN = bytes(range(16)), bytes(range(8))


def test_ids_are_hex_wherever_they_stand():
    span = {"traceId": TRACE.hex(), "spanId": SPAN.hex(), "parentSpanId": SPAN.hex().upper()}
    span["links"] = [{"traceId": TRACE.hex(), "spanId": SPAN.hex()}]
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    request = ExportTraceServiceRequest.FromString(
        protobuf_of_json("traces", json.dumps(document).encode())
    )
    read = request.resource_spans[0].scope_spans[0].spans[0]
    assert (read.trace_id, read.span_id, read.parent_span_id) == (TRACE, SPAN, SPAN)
    assert (read.links[0].trace_id, read.links[0].span_id) == (TRACE, SPAN)


def test_a_log_record_and_an_exemplar_keep_their_trace():
    ids = {"traceId": TRACE.hex(), "spanId": SPAN.hex()}
    record = {"body": {"stringValue": "Xid 63"}, "timeUnixNano": "17", **ids}
    logs = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    read = ExportLogsServiceRequest.FromString(protobuf_of_json("logs", json.dumps(logs).encode()))
    found = read.resource_logs[0].scope_logs[0].log_records[0]
    assert (found.trace_id, found.body.string_value, found.time_unix_nano) == (TRACE, "Xid 63", 17)
    point = {"asInt": "5", "exemplars": [ids]}
    metric = {"name": "hw.errors", "sum": {"dataPoints": [point]}}
    metrics = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    data = protobuf_of_json("metrics", json.dumps(metrics).encode())
    read = ExportMetricsServiceRequest.FromString(data)
    found = read.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
    assert (found.as_int, found.exemplars[0].span_id) == (5, SPAN)


def test_real_spans_are_the_same_by_both_ways(fleet):
    data = b"".join(encode_traces(fleet.rank(1, 4)))
    message = ExportTraceServiceRequest.FromString(data)
    document = json_format.MessageToDict(message)
    for resource_spans in document["resourceSpans"]:
        for scope_spans in resource_spans["scopeSpans"]:
            for span, original in zip(
                scope_spans["spans"],
                message.resource_spans[0].scope_spans[0].spans,
                strict=True,
            ):
                span["traceId"], span["spanId"] = original.trace_id.hex(), original.span_id.hex()
                span["parentSpanId"] = original.parent_span_id.hex()
    read = protobuf_of_json("traces", json.dumps(document).encode())
    assert ExportTraceServiceRequest.FromString(read) == message


def test_unknown_fields_and_a_users_own_keys_are_left_alone():
    attribute = {"key": "traceId", "value": {"stringValue": "not hex"}}
    log = {"attributes": [attribute], "traceId": None, "fieldOfTomorrow": {"a": 1}}
    document = {"resourceLogs": [{"scopeLogs": [{"logRecords": [log]}]}]}
    read = ExportLogsServiceRequest.FromString(
        protobuf_of_json("logs", json.dumps(document).encode())
    )
    found = read.resource_logs[0].scope_logs[0].log_records[0].attributes[0]
    assert (found.key, found.value.string_value) == ("traceId", "not hex")


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[]", b"7", b"null", b"\xff", b'{"resourceSpans": 7}', b"[" * 100_000]
    + [b'{"resourceSpans":' + b'[{"scopeSpans":' * 5_000]
    + [
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":%s}]}]}]}' % b
        for b in (b'"x"', b"7")
    ]
    + [b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"a"}]}]}]}']
    + [b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":1e400}]}]}]}'],
)
def test_what_is_no_request_is_refused(document):
    with pytest.raises(DecodeError, match="document"):
        protobuf_of_json("traces", document)
