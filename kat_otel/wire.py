"""Protobuf's wire form, as far as spans that are packed by hand need it.

The standard library only: workers import this. Field numbers are those of
opentelemetry/proto/trace/v1/trace.proto and common/v1/common.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from kat_otel import fields, semconv
from kat_otel.errors import DecodeError
from kat_otel.fields import REST
from kat_otel.kernels import family
from kat_otel.spans import UNKNOWN, AttributeValue, Resource, SpanKind

__all__ = [
    "any_value",
    "delimited",
    "read_fields",
    "resource_attributes",
    "resource_pairs",
    "span_head",
    "text_attribute",
    "utf8",
    "value_attribute",
    "varint",
]

_KERNELS: Final = (SpanKind.KERNEL, SpanKind.COLLECTIVE)
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def varint(number: int) -> bytes:
    """Returns ``number`` (0 to 2**64-1) in base 128, the lowest group first."""
    if number < 0x80:
        return bytes((number,))
    groups = bytearray()
    while number >= 0x80:
        groups.append((number & 0x7F) | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def delimited(tag: bytes, payload: bytes) -> bytes:
    """Returns a length-delimited field: strings, bytes and embedded messages."""
    return tag + varint(len(payload)) + payload


def utf8(text: str) -> bytes:
    """Returns a text's bytes; a lone surrogate cannot be written, so it is shown."""
    return text.encode("utf-8", "backslashreplace")


def any_value(value: AttributeValue) -> bytes:
    """Returns the fields of an AnyValue; what no int64 holds is written as a text."""
    if isinstance(value, str):
        return delimited(b"\x0a", utf8(value))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            return any_value(str(value))
        return b"\x18" + varint(value & (2**64 - 1))
    if isinstance(value, float):
        return b"\x21" + struct.pack("<d", value)
    return delimited(b"\x3a", value)


def value_attribute(tag: bytes, key: str, value: AttributeValue) -> bytes:
    """Returns an attribute as the field ``tag`` of a span, a resource or a data point."""
    pair = _key(key) + delimited(b"\x12", any_value(value))
    return delimited(tag, pair)


@lru_cache(maxsize=1_024)
def _key(key: str) -> bytes:
    return delimited(b"\x0a", utf8(key))


def text_attribute(key: str, text: str) -> bytes:
    """Returns a text as an attribute of a span."""
    return value_attribute(b"\x4a", key, text)


def span_head(text: str, kind: int, *, says_kind: bool) -> bytes:
    """Returns what a span's name and kind become: name, OpenTelemetry's kind, two attributes.

    Args:
        text: of the column ``name``.
        kind: a SpanKind.
        says_kind: whether a reader could not tell the kind without being told.
    """
    is_kernel = kind in _KERNELS and text != ""
    head = delimited(b"\x2a", utf8(family(text) if is_kernel else text))
    head += b"\x30" + varint(fields.KIND_OTEL_INTERNAL)
    if is_kernel:
        head += text_attribute(semconv.KERNEL_NAME, text)
    if says_kind and not (is_kernel and kind == SpanKind.KERNEL):
        head += text_attribute(semconv.SPAN_KIND, fields.KIND_NAMES[SpanKind(kind)])
    return head


def resource_pairs(resource: Resource) -> list[tuple[str, AttributeValue]]:
    """Returns the attributes of an OTLP Resource, as they are named on the wire."""
    pairs: list[tuple[str, AttributeValue]] = [
        (key, getattr(resource, name))
        for key, (name, _) in fields.RESOURCE_INTS.items()
        if getattr(resource, name) != (1 if name == "resolution_ns" else UNKNOWN)
    ]
    pairs += [
        (key, getattr(resource, name))
        for key, name in fields.RESOURCE_TEXTS.items()
        if getattr(resource, name)
    ]
    return pairs + [(key, value) for key, value in resource.attributes.items() if key != REST]


def resource_attributes(resource: Resource) -> bytes:
    """Returns the fields of an OTLP Resource, without what only the protobuf library reads."""
    pairs = resource_pairs(resource)
    return b"".join(value_attribute(b"\x0a", key, value) for key, value in pairs)


def read_fields(data: bytes) -> Iterator[tuple[tuple[int, int], int | bytes]]:
    """Yields (field number, wire type) and value of each field; of groups there are none.

    Raises:
        DecodeError: the bytes are no such message.
    """
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        field, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _read_varint(data, at)
        elif wire in {_BYTES, _FIXED64, _FIXED32}:
            size = 8 if wire == _FIXED64 else 4
            if wire == _BYTES:
                size, at = _read_varint(data, at)
            if size > len(data) - at:
                raise DecodeError(f"field {field} reaches beyond the message")
            value, at = data[at : at + size], at + size
        else:
            raise DecodeError(f"field {field} has wire type {wire}, which is not in use")
        if not field:
            raise DecodeError("a field without a number")
        yield (field, wire), value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70:
        if at >= len(data):
            raise DecodeError("a message that ends within a number")
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number & 0xFFFFFFFFFFFFFFFF, at
    raise DecodeError("a number of more than ten bytes")
