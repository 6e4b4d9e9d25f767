"""OTLP's JSON form to its protobuf messages.

It is protobuf's JSON mapping with one exception: ids are hex, where the mapping has base64.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, cast

import msgspec
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel.errors import DecodeError

__all__ = ["request_from_json"]

_IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")


def request_from_json(data: bytes) -> ExportTraceServiceRequest:
    """Returns the message of an OTLP JSON document.

    Raises:
        DecodeError: not JSON, or not of OTLP's form; the message says where.
    """
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"document of {len(data):,} bytes: not JSON ({error})") from error
    if not isinstance(document, dict):
        raise DecodeError("document: an OTLP JSON message is an object with 'resourceSpans'")
    tree = cast(dict[str, Any], document)
    for at, span in enumerate(_spans(tree)):
        _hex_to_base64(span, f"span {at}")
        for link_at, link in enumerate(_objects(span, "links", "links")):
            _hex_to_base64(link, f"span {at}, link {link_at}")
    try:
        return json_format.ParseDict(tree, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, RecursionError) as error:
        raise DecodeError(f"document: not an OTLP trace message ({error})") from error


def _spans(tree: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        span
        for resource_spans in _objects(tree, "resourceSpans", "resource_spans")
        for scope_spans in _objects(resource_spans, "scopeSpans", "scope_spans")
        for span in _objects(scope_spans, "spans", "spans")
    ]


def _objects(parent: dict[str, Any], camel: str, snake: str) -> list[dict[str, Any]]:
    values: Any = parent.get(camel, parent.get(snake)) or []
    if not isinstance(values, list):
        found = type(cast(object, values)).__name__
        raise DecodeError(f"{camel!r}: wants a list, is a {found}")
    items = cast(list[Any], values)
    for at, item in enumerate(items):
        if not isinstance(item, dict):
            raise DecodeError(f"{camel}[{at}]: wants an object, is a {type(item).__name__}")
    return cast(list[dict[str, Any]], items)


def _hex_to_base64(holder: dict[str, Any], where: str) -> None:
    for key in _IDS:
        text = holder.get(key)
        if text is None:
            continue
        try:
            holder[key] = base64.b64encode(binascii.unhexlify(text)).decode()
        except (binascii.Error, ValueError, TypeError) as error:
            raise DecodeError(f"{where}: {key} {text!r} is not hex ({error})") from error
