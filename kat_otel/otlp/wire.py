"""Protobuf's wire form, as far as hand-packed spans need it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

from kat_otel.spans import AttributeValue

__all__ = ["WireValue", "attribute", "delimited", "fixed64", "int_attribute", "varint"]

WireValue = AttributeValue | Sequence[str] | Sequence[int]
"""What an attribute may be when it is written: a scalar, or a list of strings or of integers."""

_FIXED64 = struct.Struct("<Q")


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


def fixed64(number: int) -> bytes:
    """Returns the eight bytes of a fixed64 field's value."""
    return _FIXED64.pack(number)


def attribute(key: str, value: WireValue) -> KeyValue:
    """Returns the attribute as a protobuf message; lists become arrays."""
    return KeyValue(key=key, value=_any_value(value))


def _any_value(value: WireValue) -> AnyValue:
    if isinstance(value, str):
        # A lone surrogate cannot be written as UTF-8; it is shown instead of refused.
        return AnyValue(string_value=value.encode("utf-8", "backslashreplace").decode())
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    return AnyValue(array_value=ArrayValue(values=[_any_value(item) for item in value]))


@lru_cache(maxsize=65_536)
def int_attribute(key: str, value: int) -> bytes:
    """Returns the bytes of a KeyValue with a non-negative integer, kept for values that recur."""
    number = b"\x18" + varint(value)  # AnyValue.int_value
    return delimited(b"\x0a", key.encode()) + delimited(b"\x12", number)
