"""Columns to OTLP trace requests, hand-packed and split below a byte limit.

Whatever recurs (names, grids, streams, resources) is packed once per table; a span is then
a join of byte strings. Field numbers are those of opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from kat_otel import semconv
from kat_otel.kernels import family
from kat_otel.otlp import fields
from kat_otel.otlp.fields import REST
from kat_otel.otlp.wire import attribute, delimited, fixed64, int_attribute, varint
from kat_otel.spans import UNKNOWN, AttributeValue, Resource, SpanKind, SpanTable

__all__ = ["MAX_REQUEST_BYTES", "Request", "encode_requests", "encode_traces"]

MAX_REQUEST_BYTES: Final = 3_670_016
"""3.5 MiB: gRPC servers refuse messages above 4 MiB unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        data: bytes of an ExportTraceServiceRequest.
        rows: rows of the table that it carries, int64.
    """

    data: bytes
    rows: NDArray[np.int64]


def encode_traces(
    table: SpanTable, rows: NDArray[Any] | None = None, *, limit: int = MAX_REQUEST_BYTES
) -> Iterator[bytes]:
    """Yields ExportTraceServiceRequest bytes of the table, each at most ``limit`` bytes.

    Args:
        table: spans; ids must be set.
        rows: bool mask or row numbers of those to encode; all if None.
        limit: bytes of a request. A single span above it is sent alone, whatever its size.
    """
    return (request.data for request in encode_requests(table, rows, limit=limit))


def encode_requests(
    table: SpanTable, rows: NDArray[Any] | None = None, *, limit: int = MAX_REQUEST_BYTES
) -> Iterator[Request]:
    """Yields what :func:`encode_traces` yields, with the rows that each request carries."""
    chosen = np.arange(len(table)) if rows is None else _row_numbers(rows)
    chosen = chosen[np.argsort(table.resource[chosen], kind="stable")]
    if len(chosen) == 0:
        return
    spans = _pack_spans(table, chosen)
    resource_of: list[int] = table.resource[chosen].tolist()
    groups: list[bytes] = []
    packed_bytes = 0
    first = at = 0
    while at < len(spans):
        resource = resource_of[at]
        header, scope = _pack_resource(table.resources[resource])
        # Room for the resource and the lengths of the messages around the spans.
        room = limit - packed_bytes - len(header) - len(scope) - 32
        end, size = at, 0
        while end < len(spans) and resource_of[end] == resource:
            size += len(spans[end])
            if size > room and (end > at or groups):
                break
            end += 1
        if end > at:
            group = header + delimited(b"\x12", scope + b"".join(spans[at:end]))
            groups.append(delimited(b"\x0a", group))
            packed_bytes += len(groups[-1])
            at = end
        if at == len(spans) or resource_of[at] == resource:  # the end, or no room for the next
            yield Request(b"".join(groups), chosen[first:at])
            groups, packed_bytes, first = [], 0, at


def _row_numbers(rows: NDArray[Any]) -> NDArray[np.int64]:
    return np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)


def _pack_resource(resource: Resource) -> tuple[bytes, bytes]:
    """Returns the fields of ResourceSpans but the spans, and those of ScopeSpans."""
    pairs = [
        (key, getattr(resource, name))
        for key, (name, _) in fields.RESOURCE_INTS.items()
        if getattr(resource, name) != (1 if name == "resolution_ns" else UNKNOWN)
    ]
    pairs += [
        (key, getattr(resource, name))
        for key, name in fields.RESOURCE_TEXTS.items()
        if getattr(resource, name)
    ]
    pairs += [(key, value) for key, value in resource.attributes.items() if key != REST]
    packed = b"".join(
        delimited(b"\x0a", attribute(key, value).SerializeToString()) for key, value in pairs
    )
    rest = _rest_of(resource)
    packed += rest.resource.SerializeToString()
    header = delimited(b"\x0a", packed)
    header += delimited(b"\x1a", (rest.schema_url or semconv.SCHEMA_URL).encode())
    schema_url = semconv.SCHEMA_URL
    scope = delimited(b"\x0a", semconv.SCOPE_NAME.encode())
    if rest.scope_spans:
        schema_url = rest.scope_spans[0].schema_url or schema_url
        if rest.scope_spans[0].HasField("scope"):
            scope = rest.scope_spans[0].scope.SerializeToString()
    return header, delimited(b"\x0a", scope) + delimited(b"\x1a", schema_url.encode())


def _rest_of(resource: Resource) -> ResourceSpans:
    kept = resource.attributes.get(REST)
    return ResourceSpans.FromString(kept) if isinstance(kept, bytes) else ResourceSpans()


_KERNELS = (SpanKind.KERNEL, SpanKind.COLLECTIVE)


def _pack_spans(table: SpanTable, rows: NDArray[np.int64]) -> list[bytes]:
    """Returns every span as a field of ScopeSpans, in the order of ``rows``."""
    ids = np.stack(
        [column[rows] for column in (table.trace_hi, table.trace_lo, table.span_id)], axis=1
    )
    id_bytes = ids.astype(">u8").tobytes()
    parents = table.parent_id[rows].astype(">u8").tobytes()
    has_parent = (table.parent_id[rows] != 0).tolist()
    starts = table.start_ns[rows].tolist()
    ends = table.end_ns[rows].tolist()
    heads = _pack_heads(table, rows)
    attributes = _pack_columns(table, rows)
    spans: list[bytes] = []
    for at, row in enumerate(rows.tolist()):
        parts = [
            b"\x0a\x10" + id_bytes[24 * at : 24 * at + 16],
            b"\x12\x08" + id_bytes[24 * at + 16 : 24 * at + 24],
            b"\x22\x08" + parents[8 * at : 8 * at + 8] if has_parent[at] else b"",
            heads[at],
            b"\x39" + fixed64(starts[at]) + b"\x41" + fixed64(ends[at]),
            attributes[at],
        ]
        if row in table.attributes:
            parts.append(_pack_extra(table.attributes[row]))
        body = b"".join(parts)
        spans.append(b"\x12" + varint(len(body)) + body)
    return spans


def _pack_heads(table: SpanTable, rows: NDArray[np.int64]) -> list[bytes]:
    """Returns name, OTel kind and our kind of every span, packed once per distinct triple."""
    internal = b"\x30" + varint(fields.KIND_OTEL_INTERNAL)
    packed: dict[tuple[int, int, bool], bytes] = {}
    heads: list[bytes] = []
    columns = (table.name[rows], table.kind[rows], _must_say_kind(table)[rows])
    for name, kind, says_kind in zip(*(column.tolist() for column in columns), strict=True):
        head = packed.get((name, kind, says_kind))
        if head is None:
            text = table.strings[name]
            is_kernel = kind in _KERNELS and text != ""
            head = delimited(b"\x2a", _utf8(family(text) if is_kernel else text)) + internal
            if is_kernel:
                head += _text_attribute(semconv.KERNEL_NAME, text)
            if says_kind and not (is_kernel and kind == SpanKind.KERNEL):
                head += _text_attribute(semconv.SPAN_KIND, fields.KIND_NAMES[SpanKind(kind)])
            packed[name, kind, says_kind] = head
        heads.append(head)
    return heads


def _must_say_kind(table: SpanTable) -> NDArray[np.bool_]:
    """Returns where the reader could not tell the kind; foreign spans stay as they came."""
    must = (table.kind != SpanKind.OTHER) | (table.stream >= 0) | (table.correlation >= 0)
    for row, values in table.attributes.items():
        must[row] |= semconv.KERNEL_NAME in values
    return must


def _pack_columns(table: SpanTable, rows: NDArray[np.int64]) -> list[bytes]:
    """Returns the attributes that stand in columns."""
    packed: list[list[bytes]] = []
    for key, (column, _) in fields.SPAN_INTS.items():
        values = getattr(table, column)[rows]
        if np.any(values >= 0):
            numbers: list[int] = values.tolist()
            packed.append([_int_field(key, number) for number in numbers])
    for key, column in fields.SPAN_TEXTS.items():
        values = getattr(table, column)[rows]
        if np.any(values != 0):
            texts = {
                index: _text_attribute(key, table.strings[index]) if table.strings[index] else b""
                for index in np.unique(values).tolist()
            }
            packed.append([texts[v] for v in values.tolist()])
    if not packed:
        return [b""] * len(rows)
    return [b"".join(parts) for parts in zip(*packed, strict=True)]


def _pack_extra(values: Any) -> bytes:
    extra: dict[str, AttributeValue] = dict(values)
    rest = extra.pop(REST, b"")
    packed = b"".join(
        delimited(b"\x4a", attribute(key, value).SerializeToString())
        for key, value in extra.items()
    )
    return packed + (rest if isinstance(rest, bytes) else b"")


def _int_field(key: str, value: int) -> bytes:
    return delimited(b"\x4a", int_attribute(key, value)) if value >= 0 else b""


def _text_attribute(key: str, text: str) -> bytes:
    value = delimited(b"\x0a", _utf8(text))  # AnyValue.string_value
    return delimited(b"\x4a", delimited(b"\x0a", key.encode()) + delimited(b"\x12", value))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
