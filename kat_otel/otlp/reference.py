"""OTLP trace messages to columns, by the protobuf library: what a message means.

The wire walker (:mod:`kat_otel.otlp.decode`) takes the usual spans and must agree with this
field by field; what is unusual comes here, span by span, and so does the JSON form. What OTLP
can say and :class:`SpanTable` has no column for is kept as protobuf bytes beside the span (see
:data:`~kat_otel.fields.REST`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError as ProtobufDecodeError
from numpy.typing import NDArray
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from kat_otel import fields, semconv
from kat_otel.errors import DecodeError
from kat_otel.fields import REST
from kat_otel.kernels import family
from kat_otel.otlp.rejected import Rejected
from kat_otel.spans import (
    UNKNOWN,
    AttributeValue,
    Resource,
    SpanKind,
    SpanTable,
    SpanTableBuilder,
    StringTable,
)

__all__ = [
    "Rows",
    "header_problem_of",
    "parse",
    "problem_of",
    "refuse_header",
    "reject",
    "resource_of",
    "table_of",
]


def parse(data: bytes) -> ExportTraceServiceRequest:
    """Returns the message of wire bytes.

    Raises:
        DecodeError: they are none; sending them again cannot succeed.
    """
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(data)
    except ProtobufDecodeError as error:
        raise DecodeError(
            f"request of {len(data):,} bytes: not an OTLP trace message ({error})"
        ) from error
    return request


def table_of(
    request: ExportTraceServiceRequest,
    rejected: Rejected | None = None,
    strings: StringTable | None = None,
    max_attribute_bytes: int | None = None,
) -> SpanTable:
    """Returns the spans of a message, in its order; see :func:`~kat_otel.otlp.decode_traces`."""
    builder = SpanTableBuilder(strings)
    refused: set[tuple[int, int]] = set()
    for at, resource_spans in enumerate(request.resource_spans):
        for scope_at, scope_spans in enumerate(resource_spans.scope_spans):
            problem = header_problem_of(resource_spans, scope_spans, max_attribute_bytes)
            if problem:
                refuse_header(at, problem, len(scope_spans.spans), rejected)
                refused.add((at, scope_at))
    for at, resource_spans in enumerate(request.resource_spans):
        for scope_at, scope_spans in enumerate(resource_spans.scope_spans):
            if (at, scope_at) in refused:
                builder.add_resource(Resource())
                continue
            index = builder.add_resource(resource_of(resource_spans, scope_spans))
            place = f"resource_spans[{at}].scope_spans[{scope_at}]"
            rows = Rows(builder.strings)
            for span_at, span in enumerate(scope_spans.spans):
                problem = problem_of(span, max_attribute_bytes)
                if problem:
                    reject(f"{place}.spans[{span_at}]", span, problem, rejected)
                else:
                    rows.add(span)
            builder.append(len(rows), attributes=rows.attributes, resource=index, **rows.columns())
    return builder.build()


def reject(place: str, span: Span, problem: str, rejected: Rejected | None) -> None:
    """Counts a span that cannot be taken.

    Raises:
        DecodeError: nobody counts.
    """
    reason = f"{place} ({span.name[:80]!r}): {problem}"
    if rejected is None:
        raise DecodeError(reason)
    rejected.add(reason)


def refuse_header(resource: int, problem: str, spans: int, rejected: Rejected | None) -> None:
    """Counts the spans of a resource or scope that cannot be taken.

    Raises:
        DecodeError: nobody counts, and there are spans.
    """
    reason = f"resource_spans[{resource}]: {problem}"
    for _ in range(spans):
        if rejected is None:
            raise DecodeError(reason)
        rejected.add(reason)


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


class Rows:
    """The columns of spans while they are read; attributes' columns by key.

    Attributes:
        attributes: attributes without a column, by row.
    """

    def __init__(self, strings: StringTable) -> None:
        self.strings = strings
        self.ints = {
            key: _Sparse(largest, UNKNOWN) for key, (_, largest) in fields.SPAN_INTS.items()
        }
        self.texts = {key: _Sparse(0, 0) for key in fields.SPAN_TEXTS}
        self.attributes: dict[int, dict[str, AttributeValue]] = {}
        self._ids: list[bytes] = []
        self._start: list[int] = []
        self._duration: list[int] = []
        self._name: list[int] = []
        self._kind: list[int] = []

    def __len__(self) -> int:
        return len(self._start)

    def add(self, span: Span) -> None:
        """Adds a span in which :func:`problem_of` finds nothing."""
        row = len(self)
        said = _Attributes()
        for pair in span.attributes:
            which = pair.value.WhichOneof("value")
            if which == "int_value":
                said.read_int(pair, self, row)
            elif which == "string_value":
                said.read_text(pair, self, row)
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
            kind = SpanKind.KERNEL if said.kernel else _inferred_kind(name, self, row)
        duration = span.end_time_unix_nano - span.start_time_unix_nano
        if duration < 0:
            said.rest.end_time_unix_nano = span.end_time_unix_nano
        _keep_rest(span, said.rest)
        if said.rest.ByteSize():
            said.extra[REST] = said.rest.SerializeToString()
        if said.extra:
            self.attributes[row] = said.extra
        self._ids += (span.trace_id, span.span_id, span.parent_span_id or _NO_SPAN_ID)
        self._start.append(span.start_time_unix_nano)
        self._duration.append(max(0, duration))
        self._name.append(self.strings.add(name))
        self._kind.append(kind)

    def columns(self) -> dict[str, Any]:
        """Returns all columns that a message can fill, by name."""
        count = len(self)
        ids = np.frombuffer(b"".join(self._ids), dtype=">u8").reshape(count, 4)
        columns: dict[str, Any] = {
            "trace_hi": ids[:, 0],
            "trace_lo": ids[:, 1],
            "span_id": ids[:, 2],
            "parent_id": ids[:, 3],
            "start_ns": self._start,
            "duration_ns": self._duration,
            "name": self._name,
            "kind": self._kind,
        }
        for key, column in self.ints.items():
            columns[fields.SPAN_INTS[key][0]] = column.dense(count)
        for key, column in self.texts.items():
            columns[fields.SPAN_TEXTS[key]] = column.dense(count)
        return columns


_NO_TRACE_ID = bytes(16)
_NO_SPAN_ID = bytes(8)


def problem_of(span: Span, max_attribute_bytes: int | None = None) -> str:
    """Returns why a span cannot be taken, or ``""``."""
    if len(span.trace_id) != 16 or span.trace_id == _NO_TRACE_ID:
        return f"trace id of {len(span.trace_id)} bytes, wants 16 that are not all zero"
    if len(span.span_id) != 8 or span.span_id == _NO_SPAN_ID:
        return f"span id of {len(span.span_id)} bytes, wants 8 that are not all zero"
    if len(span.parent_span_id) not in (0, 8):
        return f"parent span id of {len(span.parent_span_id)} bytes, wants 8 or none"
    if max(span.start_time_unix_nano, span.end_time_unix_nano) > fields.INT64_MAX:
        return "time after the year 2262"
    if max_attribute_bytes is not None and span.ByteSize() > max_attribute_bytes:
        return _too_long(span, max_attribute_bytes)
    return ""


def header_problem_of(
    resource_spans: ResourceSpans, scope_spans: ScopeSpans, max_attribute_bytes: int | None
) -> str:
    """Returns why the spans of a resource and scope cannot be taken, or ``""``."""
    resource, scope, most = resource_spans.resource, scope_spans.scope, max_attribute_bytes
    if most is None:
        return ""
    texts = {
        "schema_url": max(resource_spans.schema_url, scope_spans.schema_url, key=len),
        "scope's name": scope.name,
        "scope's version": scope.version,
    }
    for what, text in texts.items():
        if len(text) > most // 4 and (size := len(text.encode())) > most:
            return f"{what} of {size:,} bytes, at most {most:,} are taken"
    if (size := max((ref.ByteSize() for ref in resource.entity_refs), default=0)) > most:
        return f"entity of {size:,} bytes, at most {most:,} are taken"
    if resource.ByteSize() + scope.ByteSize() <= most:
        return ""
    return _too_long_in([*resource.attributes, *scope.attributes], most)


def _too_long(span: Span, most: int) -> str:
    if (size := len(span.name.encode())) > most:
        return f"name of {size:,} bytes, at most {most:,} are taken"
    holders = [span, *span.events, *span.links]
    return _too_long_in((pair for holder in holders for pair in holder.attributes), most)


def _too_long_in(pairs: Iterable[KeyValue], most: int) -> str:
    for pair in pairs:
        value = pair.value
        which = value.WhichOneof("value")
        if which == "string_value":
            size = len(value.string_value.encode())
        elif which == "bytes_value":
            size = len(value.bytes_value)
        else:
            size = value.ByteSize()
        if size > most:
            return f"attribute {pair.key[:80]!r} of {size:,} bytes, at most {most:,} are taken"
    return ""


@dataclass(slots=True)
class _Attributes:
    """Those of one span's attributes that fill no column of their own."""

    kernel: str = ""
    kind: SpanKind | None = None
    extra: dict[str, AttributeValue] = field(default_factory=dict[str, AttributeValue])
    rest: Span = field(default_factory=Span)

    def read_int(self, pair: KeyValue, rows: Rows, row: int) -> None:
        value = pair.value.int_value
        column = rows.ints.get(pair.key)
        if column is not None and 0 <= value <= column.largest:
            column.add(row, value)
        else:
            self.extra[pair.key] = value

    def read_text(self, pair: KeyValue, rows: Rows, row: int) -> None:
        key, value = pair.key, pair.value.string_value
        if not value:
            self.extra[key] = value
        elif key == semconv.KERNEL_NAME:
            self.kernel = value
        elif (column := rows.texts.get(key)) is not None:
            column.add(row, rows.strings.add(value))
        elif key == semconv.SPAN_KIND and value in fields.KIND_OF_NAME:
            self.kind = fields.KIND_OF_NAME[value]
        else:
            self.extra[key] = value

    def read_other(self, pair: KeyValue) -> None:
        value = _plain(pair)
        if value is None or pair.key == REST:  # a sender's bytes never pass for our own
            self.rest.attributes.append(pair)
        else:
            self.extra[pair.key] = value


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


def _inferred_kind(name: str, rows: Rows, row: int) -> SpanKind:
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
    """Returns the attribute's value, None if it is an array, a map or empty."""
    which = pair.value.WhichOneof("value")
    if which in ("string_value", "int_value", "bool_value", "double_value", "bytes_value"):
        return getattr(pair.value, which)
    return None


def _fits(value: AttributeValue, largest: int) -> bool:
    return type(value) is int and 0 <= value <= largest


def resource_of(resource_spans: ResourceSpans, scope_spans: ScopeSpans) -> Resource:
    """Returns what a resource and a scope say of the worker."""
    known: dict[str, Any] = {}
    extra: dict[str, AttributeValue] = {}
    rest = ResourceSpans()
    for pair in resource_spans.resource.attributes:
        key = pair.key
        value = _plain(pair)
        if value is None or (key == REST and isinstance(value, bytes)):
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
