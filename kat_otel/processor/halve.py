"""Parts a request that the endpoint finds too large. Rare, so the protobuf library does it."""

from __future__ import annotations

from typing import Any, Final, Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["halve"]

_SHAPES: Final[dict[str, tuple[Any, str, str, str]]] = {
    "traces": (ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans"),
    "logs": (ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records"),
    "metrics": (ExportMetricsServiceRequest, "resource_metrics", "scope_metrics", "metrics"),
}


def halve(signal: Literal["traces", "logs", "metrics"], data: bytes) -> list[tuple[bytes, int]]:
    """Returns two requests with half of the items each, and how many items each has.

    Args:
        signal: what the request carries.
        data: its bytes.

    Returns:
        Empty if the request has one item or none: it cannot be made smaller.
    """
    make, outer, middle, inner = _SHAPES[signal]
    request = make.FromString(data)
    total = sum(
        len(getattr(scope, inner))
        for resource in getattr(request, outer)
        for scope in getattr(resource, middle)
    )
    if total < 2:
        return []
    parts = [(0, total // 2), (total // 2, total)]
    return [(_keep(make.FromString(data), signal, *part), part[1] - part[0]) for part in parts]


def _keep(request: Any, signal: str, begin: int, end: int) -> bytes:
    """Returns the request with its items ``begin`` to ``end`` only."""
    _, outer, middle, inner = _SHAPES[signal]
    at = 0
    for resource in getattr(request, outer):
        for scope in getattr(resource, middle):
            items = getattr(scope, inner)
            first, last = max(begin - at, 0), min(max(end - at, 0), len(items))
            at += len(items)
            del items[last:]
            del items[: min(first, len(items))]
        empty = [i for i, s in enumerate(getattr(resource, middle)) if not getattr(s, inner)]
        for index in reversed(empty):
            del getattr(resource, middle)[index]
    empty = [i for i, r in enumerate(getattr(request, outer)) if not getattr(r, middle)]
    for index in reversed(empty):
        del getattr(request, outer)[index]
    return request.SerializeToString()
