"""Which attribute fills which column, said once for both directions.

A known attribute whose value does not fit its column (a negative stream, a rank that is a
sentence) stays an ordinary attribute, so it is forwarded as it came.
"""

from __future__ import annotations

from typing import Final

from kat_otel import semconv
from kat_otel.spans import SpanKind

__all__ = [
    "INT32_MAX",
    "INT64_MAX",
    "KIND_NAMES",
    "KIND_OF_NAME",
    "KIND_OTEL_INTERNAL",
    "RESOURCE_INTS",
    "RESOURCE_TEXTS",
    "REST",
    "SPAN_INTS",
    "SPAN_TEXTS",
]

INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1

SPAN_INTS: Final[dict[str, tuple[str, int]]] = {
    semconv.STEP: ("step", INT32_MAX),
    semconv.THREAD_ID: ("thread", INT64_MAX),
    semconv.STREAM_ID: ("stream", INT32_MAX),
    semconv.CORRELATION_ID: ("correlation", INT64_MAX),
    semconv.GRAPH_ID: ("graph", INT32_MAX),
    semconv.GRAPH_NODE_ID: ("graph_node", INT64_MAX),
    semconv.BYTES: ("bytes", INT64_MAX),
    semconv.SEQUENCE: ("sequence", INT64_MAX),
}
"""Span attribute -> (column, largest value)."""

SPAN_TEXTS: Final[dict[str, str]] = {
    semconv.KERNEL_GRID: "grid",
    semconv.KERNEL_BLOCK: "block",
    semconv.GROUP: "group",
}
"""Span attribute -> interned column."""

RESOURCE_INTS: Final[dict[str, tuple[str, int]]] = {
    semconv.RANK: ("rank", INT32_MAX),
    semconv.WORLD_SIZE: ("world_size", INT32_MAX),
    semconv.DEVICE: ("device", INT32_MAX),
    semconv.TP_RANK: ("tp", INT32_MAX),
    semconv.PP_RANK: ("pp", INT32_MAX),
    semconv.DP_RANK: ("dp", INT32_MAX),
    semconv.EP_RANK: ("ep", INT32_MAX),
    semconv.RESOLUTION_NS: ("resolution_ns", INT32_MAX),  # two seconds: no clock is coarser
}
"""Resource attribute -> (field of Resource, largest value)."""

RESOURCE_TEXTS: Final[dict[str, str]] = {
    semconv.INSTANCE_ID: "instance",
    semconv.HOST_NAME: "host",
    semconv.HARDWARE_ID: "hardware_id",
    semconv.SOURCE: "source",
}
"""Resource attribute -> field of Resource."""

KIND_NAMES: Final[dict[SpanKind, str]] = {kind: kind.name.lower() for kind in SpanKind}
KIND_OF_NAME: Final[dict[str, SpanKind]] = {name: kind for kind, name in KIND_NAMES.items()}
"""Values of ``kat.span.kind``: ``kernel``, ``worker_step``, ... ."""

KIND_OTEL_INTERNAL: Final = 1
"""OpenTelemetry's own span kind of everything that we emit: SPAN_KIND_INTERNAL."""

REST: Final = "kat.otlp.rest"
"""Key in ``SpanTable.attributes`` and ``Resource.attributes``, never on the wire: the protobuf
bytes of what has no column (events, links, status, flags, array attributes, foreign scopes),
as a Span or ResourceSpans message, merged back when the span is sent on."""
