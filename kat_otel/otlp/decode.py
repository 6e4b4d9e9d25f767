"""OTLP trace requests to columns, by the protobuf library.

The interface is what stays: a faster walker over the wire bytes can stand behind the same
two functions. What OTLP can say and :class:`SpanTable` has no column for is kept as
protobuf bytes beside the span (see :data:`~kat_otel.otlp.fields.REST`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError as ProtobufDecodeError
from numpy.typing import NDArray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from kat_otel import semconv
from kat_otel.errors import DecodeError
from kat_otel.kernels import family
from kat_otel.otlp import fields
from kat_otel.otlp.fields import REST
from kat_otel.otlp.json_form import request_from_json
from kat_otel.otlp.link import link_parents
from kat_otel.spans import UNKNOWN, AttributeValue, Resource, SpanKind, SpanTable, SpanTableBuilder

__all__ = ["Rejected", "decode_traces", "decode_traces_json"]


@dataclass(slots=True)
class Rejected:
    """Spans of a readable request that cannot be taken, for OTLP's partial success.

    Attributes:
        spans: how many.
        reason: what is wrong with the first, and where it stands.
    """

    spans: int = 0
    reason: str = ""

    def add(self, reason: str) -> None:
        """Counts one span; the first reason is kept."""
        self.spans += 1
        self.reason = self.reason or reason


def decode_traces(data: bytes, *, rejected: Rejected | None = None) -> SpanTable:
    """Decodes an ExportTraceServiceRequest or TracesData message.

    Args:
        data: the message's wire bytes.
        rejected: takes the count of single bad spans (ids of a wrong length or zero, times after
            the year 2262), which are left out; without it such a span refuses the request.

    Returns:
        The spans in the request's order, parents linked by ids.

    Raises:
        DecodeError: the bytes are not such a message; sending them again cannot succeed.
    """
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(data)
    except ProtobufDecodeError as error:
        raise DecodeError(
            f"request of {len(data):,} bytes: not an OTLP trace message ({error})"
        ) from error
    return _table(request, rejected)


def decode_traces_json(data: bytes, *, rejected: Rejected | None = None) -> SpanTable:
    """Decodes the JSON form of the same messages: ids in hex, 64-bit integers as strings.

    Enumerations may be names or numbers, unknown keys are skipped, as OTLP demands.

    Raises:
        DecodeError: not such a document; the message says where.
    """
    return _table(request_from_json(data), rejected)


def _table(request: ExportTraceServiceRequest, rejected: Rejected | None) -> SpanTable:
    builder = SpanTableBuilder()
    for at, resource_spans in enumerate(request.resource_spans):
        for scope_at, scope_spans in enumerate(resource_spans.scope_spans):
            index = builder.add_resource(_resource(resource_spans, scope_spans))
            place = f"resource_spans[{at}].scope_spans[{scope_at}]"
            _add_spans(builder, index, scope_spans, place, rejected)
    return link_parents(builder.build())


@dataclass(slots=True)
class _Sparse:
    """A column of which most spans may say nothing: rows and their values, ``fill`` elsewhere."""

    largest: int
    fill: int
    rows: list[int] = field(default_factory=list[int])
    values: list[int] = field(default_factory=list[int])

    def add(self, row: int, value: int) -> None:
        self.rows.append(row)
        self.values.append(value)

    def said(self, row: int) -> bool:
        """Whether the span that is being read, in ``row``, has a value."""
        return bool(self.rows) and self.rows[-1] == row

    def dense(self, count: int) -> NDArray[np.int64]:
        whole = np.full(count, self.fill, dtype=np.int64)
        whole[self.rows] = self.values
        return whole


@dataclass(slots=True)
class _Rows:
    """The columns of one scope's spans while they are read; attributes' columns by key."""

    ints: dict[str, _Sparse] = field(
        default_factory=lambda: {
            key: _Sparse(largest, UNKNOWN) for key, (_, largest) in fields.SPAN_INTS.items()
        }
    )
    texts: dict[str, _Sparse] = field(
        default_factory=lambda: {key: _Sparse(0, 0) for key in fields.SPAN_TEXTS}
    )
    ids: list[bytes] = field(default_factory=list[bytes])
    start: list[int] = field(default_factory=list[int])
    duration: list[int] = field(default_factory=list[int])
    name: list[int] = field(default_factory=list[int])
    kind: list[int] = field(default_factory=list[int])
    attributes: dict[int, dict[str, AttributeValue]] = field(
        default_factory=dict[int, dict[str, AttributeValue]]
    )

    def attribute_columns(self, count: int) -> dict[str, NDArray[np.int64]]:
        ints = {fields.SPAN_INTS[key][0]: column.dense(count) for key, column in self.ints.items()}
        texts = {fields.SPAN_TEXTS[key]: column.dense(count) for key, column in self.texts.items()}
        return ints | texts


def _add_spans(
    builder: SpanTableBuilder,
    resource: int,
    scope_spans: ScopeSpans,
    place: str,
    rejected: Rejected | None,
) -> None:
    rows = _Rows()
    for at, span in enumerate(scope_spans.spans):
        problem = _problem(span)
        if not problem:
            _add_span(builder, rows, span)
            continue
        reason = f"{place}.spans[{at}] ({span.name[:80]!r}): {problem}"
        if rejected is None:
            raise DecodeError(reason)
        rejected.add(reason)
    count = len(rows.start)
    ids = np.frombuffer(b"".join(rows.ids), dtype=">u8").reshape(count, 4)
    builder.append(
        count,
        attributes=rows.attributes,
        resource=resource,
        trace_hi=ids[:, 0],
        trace_lo=ids[:, 1],
        span_id=ids[:, 2],
        parent_id=ids[:, 3],
        start_ns=rows.start,
        duration_ns=rows.duration,
        name=rows.name,
        kind=rows.kind,
        **rows.attribute_columns(count),
    )


_NO_TRACE_ID = bytes(16)
_NO_SPAN_ID = bytes(8)


def _problem(span: Span) -> str:
    if len(span.trace_id) != 16 or span.trace_id == _NO_TRACE_ID:
        return f"trace id of {len(span.trace_id)} bytes, wants 16 that are not all zero"
    if len(span.span_id) != 8 or span.span_id == _NO_SPAN_ID:
        return f"span id of {len(span.span_id)} bytes, wants 8 that are not all zero"
    if len(span.parent_span_id) not in (0, 8):
        return f"parent span id of {len(span.parent_span_id)} bytes, wants 8 or none"
    if max(span.start_time_unix_nano, span.end_time_unix_nano) > fields.INT64_MAX:
        return "time after the year 2262"
    return ""


@dataclass(slots=True)
class _Attributes:
    """Those of one span's attributes that fill no column of their own."""

    kernel: str = ""
    kind: SpanKind | None = None
    extra: dict[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    rest: Span = field(default_factory=Span)

    def read_int(self, pair: KeyValue, rows: _Rows, row: int) -> None:
        value = pair.value.int_value
        column = rows.ints.get(pair.key)
        if column is not None and 0 <= value <= column.largest:
            column.add(row, value)
        else:
            self.extra[pair.key] = value

    def read_text(self, pair: KeyValue, rows: _Rows, row: int, builder: SpanTableBuilder) -> None:
        key, value = pair.key, pair.value.string_value
        if not value:
            self.extra[key] = value
        elif key == semconv.KERNEL_NAME:
            self.kernel = value
        elif (column := rows.texts.get(key)) is not None:
            column.add(row, builder.strings.add(value))
        elif key == semconv.SPAN_KIND and value in fields.KIND_OF_NAME:
            self.kind = fields.KIND_OF_NAME[value]
        else:
            self.extra[key] = value

    def read_other(self, pair: KeyValue) -> None:
        value = _plain(pair)
        if value is None:
            self.rest.attributes.append(pair)
        else:
            self.extra[pair.key] = value


def _add_span(builder: SpanTableBuilder, rows: _Rows, span: Span) -> None:
    row = len(rows.start)
    said = _Attributes()
    for pair in span.attributes:
        which = pair.value.WhichOneof("value")
        if which == "int_value":
            said.read_int(pair, rows, row)
        elif which == "string_value":
            said.read_text(pair, rows, row, builder)
        else:
            said.read_other(pair)
    kind = said.kind
    if said.kernel and kind not in (None, SpanKind.KERNEL, SpanKind.COLLECTIVE):
        # A launch that says what it launches: the kernel's name is not the span's.
        said.extra[semconv.KERNEL_NAME] = said.kernel
        said.kernel = ""
    name = said.kernel or span.name
    if said.kernel and span.name not in (said.kernel, family(said.kernel)):
        said.rest.name = span.name
    if kind is None:
        kind = SpanKind.KERNEL if said.kernel else _inferred_kind(name, rows, row)
    duration = span.end_time_unix_nano - span.start_time_unix_nano
    if duration < 0:
        said.rest.end_time_unix_nano = span.end_time_unix_nano
    _keep_rest(span, said.rest)
    if said.rest.ByteSize():
        said.extra[REST] = said.rest.SerializeToString()
    if said.extra:
        rows.attributes[row] = said.extra
    rows.ids += (span.trace_id, span.span_id, span.parent_span_id or _NO_SPAN_ID)
    rows.start.append(span.start_time_unix_nano)
    rows.duration.append(max(0, duration))
    rows.name.append(builder.strings.add(name))
    rows.kind.append(kind)


def _keep_rest(span: Span, rest: Span) -> None:
    """Copies to ``rest`` what a kernel span of ours never has; most spans have none of it."""
    if span.kind > fields.KIND_OTEL_INTERNAL:
        rest.kind = span.kind
    if span.trace_state:
        rest.trace_state = span.trace_state
    if span.flags:
        rest.flags = span.flags
    if span.events:
        rest.events.MergeFrom(span.events)
    if span.links:
        rest.links.MergeFrom(span.links)
    if span.HasField("status"):
        rest.status.CopyFrom(span.status)
    rest.dropped_attributes_count = span.dropped_attributes_count
    rest.dropped_events_count = span.dropped_events_count
    rest.dropped_links_count = span.dropped_links_count


def _inferred_kind(name: str, rows: _Rows, row: int) -> SpanKind:
    if rows.ints[semconv.STREAM_ID].said(row):
        text = name.lower()
        if "memcpy" in text:
            return SpanKind.MEMCPY
        if "memset" in text:
            return SpanKind.MEMSET
    if rows.ints[semconv.CORRELATION_ID].said(row):
        return SpanKind.LAUNCH
    return SpanKind.OTHER


def _plain(pair: KeyValue) -> AttributeValue | None:
    """Returns the attribute's value, None if it is an array, a map, bytes or empty."""
    which = pair.value.WhichOneof("value")
    if which in ("string_value", "int_value", "bool_value", "double_value"):
        return getattr(pair.value, which)
    return None


def _fits(value: AttributeValue, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest


def _resource(resource_spans: ResourceSpans, scope_spans: ScopeSpans) -> Resource:
    known: dict[str, Any] = {}
    extra: dict[str, AttributeValue] = {}
    rest = ResourceSpans()
    for pair in resource_spans.resource.attributes:
        key = pair.key
        value = _plain(pair)
        if value is None:
            rest.resource.attributes.append(pair)
            continue
        if key in fields.RESOURCE_INTS:
            column, largest = fields.RESOURCE_INTS[key]
            # OTEL_RESOURCE_ATTRIBUTES can only say strings, so digits are taken as numbers.
            number = int(value) if isinstance(value, str) and _is_decimal(value) else value
            if _fits(number, largest):
                known[column] = number
                continue
        elif key in fields.RESOURCE_TEXTS and isinstance(value, str):
            known[fields.RESOURCE_TEXTS[key]] = value
            continue
        extra[key] = value
    rest.resource.dropped_attributes_count = resource_spans.resource.dropped_attributes_count
    rest.resource.entity_refs.MergeFrom(resource_spans.resource.entity_refs)
    if not rest.resource.ByteSize():
        rest.ClearField("resource")
    if resource_spans.schema_url not in ("", semconv.SCHEMA_URL):
        rest.schema_url = resource_spans.schema_url
    _keep_scope(scope_spans, rest)
    if rest.ByteSize():
        extra[REST] = rest.SerializeToString()
    return Resource(**known, attributes=extra)


def _keep_scope(scope_spans: ScopeSpans, rest: ResourceSpans) -> None:
    kept = ScopeSpans()
    scope = scope_spans.scope
    if scope.ByteSize() and (scope.name != semconv.SCOPE_NAME or scope.attributes):
        kept.scope.CopyFrom(scope)
    if scope_spans.schema_url not in ("", semconv.SCHEMA_URL):
        kept.schema_url = scope_spans.schema_url
    if kept.ByteSize():
        rest.scope_spans.append(kept)


def _is_decimal(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
