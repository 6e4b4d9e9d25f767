"""OTLP's JSON requests in protobuf form, so that the log and what follows know one form only."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, cast

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel.errors import DecodeError
from kat_otel.processor.exporter import Signal

__all__ = ["protobuf_of_json"]

_MESSAGES: Final[dict[Signal, Any]] = {
    "traces": ExportTraceServiceRequest,
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
_IDS: Final = frozenset(
    {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
)


def protobuf_of_json(signal: Signal, data: bytes) -> bytes:
    """Returns the same request in protobuf form.

    It is protobuf's JSON mapping with one exception: ids are hex, where the mapping has base64.
    Unknown fields are left out, as the specification wants.

    Raises:
        DecodeError: not JSON, or not of OTLP's form; the message says where.
    """
    try:
        document: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"document of {len(data):,} bytes: not JSON ({error})") from error
    if not isinstance(document, dict):
        raise DecodeError("document: an OTLP JSON request is an object")
    tree = cast(dict[str, Any], document)
    _ids_to_base64(tree)
    try:
        message = json_format.ParseDict(tree, _MESSAGES[signal](), ignore_unknown_fields=True)
        return message.SerializeToString()
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise DecodeError(f"document: not OTLP {signal} ({error})") from error


def _ids_to_base64(document: dict[str, Any]) -> None:
    # Wherever an id stands: in spans, links, log records and exemplars. Attributes have their
    # names as values, never as keys, so that nothing of a user's is taken for an id.
    waiting: list[Any] = [document]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting.extend(cast(list[Any], found))
        elif isinstance(found, dict):
            holder = cast(dict[str, Any], found)
            for key in _IDS & holder.keys():
                holder[key] = _base64(key, holder[key])
            waiting.extend(holder.values())


def _base64(key: str, text: object) -> str | None:
    if text is None:  # JSON's null is an absent field
        return None
    if not isinstance(text, str):
        raise DecodeError(f"document: {key} wants hex digits, is a {type(text).__name__}")
    try:
        return base64.b64encode(binascii.unhexlify(text)).decode()
    except (binascii.Error, ValueError) as error:
        raise DecodeError(f"document: {key} {text[:64]!r} is not hex ({error})") from error
