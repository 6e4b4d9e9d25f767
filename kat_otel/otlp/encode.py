"""Columns to OTLP trace requests, hand-packed and split below a byte limit.

Whatever recurs (names, grids, resources) is packed once per table (:mod:`kat_otel.otlp.packed`),
a span is written by compiled code (:mod:`kat_otel.otlp.pack`). Field numbers are those of
opentelemetry/proto/trace/v1/trace.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from kat_otel import semconv
from kat_otel.fields import REST
from kat_otel.spans import Resource, SpanTable
from kat_otel.wire import delimited, resource_attributes, varint

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
    resource_of = table.resource[chosen]
    if np.any(resource_of[1:] < resource_of[:-1]):
        chosen = chosen[np.argsort(resource_of, kind="stable")]
        resource_of = table.resource[chosen]
    if len(chosen) == 0:
        return
    from kat_otel.otlp.packed import PackedSpans  # noqa: PLC0415 - loads Numba

    spans = PackedSpans(table, chosen)
    # Where each resource's spans end; a request ends at its limit, maybe in mid-resource.
    ends: list[int] = [*(np.flatnonzero(np.diff(resource_of)) + 1).tolist(), len(chosen)]
    parts: list[bytes | memoryview] = []  # joined once: copies are what encoding costs
    packed_bytes = 0
    first = at = turn = 0
    while at < len(chosen):
        header, scope = _pack_resource(table.resources[int(resource_of[at])])
        # Room for the resource and the lengths of the messages around the spans.
        room = limit - packed_bytes - len(header) - len(scope) - 32
        end = min(spans.fitting(at, room), ends[turn])
        if end == at and not parts:
            end = at + 1  # larger than any request: sent alone
        if end > at:
            packed = spans.packed(at, end)
            scope = b"\x12" + varint(len(scope) + len(packed)) + scope
            header = b"\x0a" + varint(len(header) + len(scope) + len(packed)) + header
            parts += (header, scope, packed)
            packed_bytes += len(header) + len(scope) + len(packed)
            at = end
        whole = at == ends[turn]
        turn += whole
        if at == len(chosen) or not whole:  # the end, or no room for the next
            yield Request(b"".join(parts), chosen[first:at])
            parts, packed_bytes, first = [], 0, at


def _row_numbers(rows: NDArray[Any]) -> NDArray[np.int64]:
    return np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)


def _pack_resource(resource: Resource) -> tuple[bytes, bytes]:
    """Returns the fields of ResourceSpans but the spans, and those of ScopeSpans."""
    packed = resource_attributes(resource)
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
