"""Reading what others send: foreign spans, JSON, kinds that nobody said."""

import json

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

from kat_otel.errors import DecodeError
from kat_otel.otlp import decode_traces, decode_traces_json, encode_traces
from kat_otel.spans import SpanKind


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def number(key: str, value: int) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(int_value=value))


def request(*attributes: KeyValue, name: str = "span") -> ExportTraceServiceRequest:
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    span = spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name=name, kind=1)
    span.start_time_unix_nano, span.end_time_unix_nano = 100, 250
    span.attributes.extend(attributes)
    return message


@pytest.mark.parametrize(
    ("attributes", "name", "kind"),
    [
        ([text("kat.span.kind", "sync")], "cudaStreamSynchronize", SpanKind.SYNC),
        ([text("gpu.cuda.kernel.name", "gemm")], "gemm", SpanKind.KERNEL),
        (
            [text("gpu.cuda.kernel.name", "all_reduce"), text("kat.span.kind", "collective")],
            "all_reduce",
            SpanKind.COLLECTIVE,
        ),
        ([number("gpu.cuda.stream.id", 7)], "Memcpy HtoD (Pinned -> Device)", SpanKind.MEMCPY),
        ([number("gpu.cuda.stream.id", 7)], "Memset (Device)", SpanKind.MEMSET),
        ([number("gpu.cuda.correlation.id", 9)], "cudaLaunchKernel", SpanKind.LAUNCH),
        ([], "llm_request", SpanKind.OTHER),
        ([text("kat.span.kind", "of another world")], "x", SpanKind.OTHER),
    ],
)
def test_the_kind_is_what_the_span_says_or_what_its_attributes_imply(attributes, name, kind):
    table = decode_traces(request(*attributes, name=name).SerializeToString())
    assert SpanKind(int(table.kind[0])) is kind


def test_foreign_spans_are_forwarded_with_all_that_has_no_column():
    array = ArrayValue(values=[AnyValue(int_value=1)])
    message = request(
        KeyValue(key="list", value=AnyValue(array_value=array)),
        KeyValue(key="raw", value=AnyValue(bytes_value=b"\x00\xff")),
        KeyValue(key="empty"),
        text("gen_ai.request.model", "m"),
    )
    resource_spans = message.resource_spans[0]
    resource_spans.schema_url = "https://example.org/schema"
    resource_spans.resource.attributes.append(text("service.name", "vllm"))
    resource_spans.resource.attributes.append(
        KeyValue(key="tags", value=AnyValue(array_value=ArrayValue()))
    )
    resource_spans.resource.dropped_attributes_count = 2
    scope_spans = resource_spans.scope_spans[0]
    scope_spans.scope.name, scope_spans.scope.version = "vllm.tracing", "0.33"
    scope_spans.schema_url = "https://example.org/scope"
    span = scope_spans.spans[0]
    span.kind, span.trace_state, span.flags = 2, "a=b", 0x301
    span.events.add(name="first token", time_unix_nano=150).attributes.append(number("n", 1))
    span.links.add(trace_id=b"u" * 16, span_id=b"v" * 8)
    span.status.code, span.status.message = 2, "failed"
    span.dropped_events_count = 4
    wire = b"".join(encode_traces(decode_traces(message.SerializeToString())))
    again = ExportTraceServiceRequest.FromString(wire)
    by_key = lambda pair: pair.key  # noqa: E731
    for whole in (message, again):  # the order of attributes carries no meaning
        for holder in (
            whole.resource_spans[0].resource,
            whole.resource_spans[0].scope_spans[0].spans[0],
        ):
            pairs = sorted(holder.attributes, key=by_key)
            del holder.attributes[:]
            holder.attributes.extend(pairs)
    assert again == message


def test_an_end_before_the_start_is_no_negative_duration_and_is_forwarded_as_it_came():
    message = request()
    span = message.resource_spans[0].scope_spans[0].spans[0]
    span.end_time_unix_nano = 40
    table = decode_traces(message.SerializeToString())
    assert table.duration_ns.tolist() == [0]
    again = ExportTraceServiceRequest.FromString(b"".join(encode_traces(table)))
    assert again.resource_spans[0].scope_spans[0].spans[0].end_time_unix_nano == 40


def test_known_attributes_that_do_not_fit_their_column_stay_attributes():
    wire = request(number("gpu.cuda.stream.id", -4), text("kat.step", "many")).SerializeToString()
    table = decode_traces(wire)
    assert table.stream.tolist() == [-1]
    assert table.attributes[0] == {"gpu.cuda.stream.id": -4, "kat.step": "many"}


def test_ranks_from_the_environment_are_strings_and_still_ranks():
    message = request()
    message.resource_spans[0].resource.attributes.append(text("kat.rank", "7"))
    assert decode_traces(message.SerializeToString()).rank.tolist() == [7]


def test_a_sender_cannot_smuggle_wire_bytes_through_the_reserved_key():
    wire = request(text("kat.otlp.rest", "\x0a\x05")).SerializeToString()
    again = decode_traces(b"".join(encode_traces(decode_traces(wire))))
    assert len(again) == 1


JSON_SPAN = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "EEE19B7EC3C1B174",
    "parentSpanId": "eee19b7ec3c1b173",
    "name": "I'm a span",
    "kind": 2,
    "startTimeUnixNano": "1544712660000000000",
    "endTimeUnixNano": 1544712661000000000,
    "attributes": [{"key": "kat.step", "value": {"intValue": "12"}}],
    "someNewField": {"is": "skipped"},
}


def json_document(**changes: object) -> bytes:
    span = JSON_SPAN | changes
    resource = {"attributes": [{"key": "kat.rank", "value": {"intValue": "3"}}]}
    scope = [{"scope": {"name": "s"}, "spans": [span]}]
    return json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": scope}]}).encode()


@pytest.mark.parametrize("kind", [2, "SPAN_KIND_SERVER"])
def test_json_has_hex_ids_and_integers_as_strings(kind):
    table = decode_traces_json(json_document(kind=kind))
    assert f"{int(table.trace_hi[0]):016x}{int(table.trace_lo[0]):016x}" == JSON_SPAN["traceId"]
    assert f"{int(table.parent_id[0]):016x}" == JSON_SPAN["parentSpanId"]
    assert table.start_ns.tolist() == [1544712660000000000]
    assert table.duration_ns.tolist() == [1_000_000_000]
    assert (table.rank.tolist(), table.step.tolist()) == ([3], [12])
    assert table.name_of(0) == "I'm a span"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff{}", "not JSON"),
        (b"[]", "'resourceSpans'"),
        (b'{"resourceSpans": 3}', "'resourceSpans': wants a list"),
        (b'{"resourceSpans": [4]}', r"resourceSpans\[0\]: wants an object"),
        (json_document(traceId="xyz"), "span 0: traceId 'xyz' is not hex"),
        (json_document(traceId="ab"), "trace id of 1 bytes"),
        (json_document(startTimeUnixNano="-5"), "startTimeUnixNano"),
        (json_document(links=[{"spanId": 4}]), "span 0, link 0: spanId"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_not_otlp_json_is_refused_with_its_place(data, message):
    with pytest.raises(DecodeError, match=message):
        decode_traces_json(data)


def test_empty_requests_are_empty_tables():
    assert len(decode_traces(b"")) == 0
    assert len(decode_traces_json(b"{}")) == 0
