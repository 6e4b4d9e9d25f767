"""Attributes as the protobuf library's messages: those that may be lists."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue

from kat_otel.spans import AttributeValue

__all__ = ["WireValue", "attribute"]

WireValue = AttributeValue | Sequence[str] | Sequence[int]
"""What an attribute may be when it is written: a scalar, or a list of strings or of integers."""


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
