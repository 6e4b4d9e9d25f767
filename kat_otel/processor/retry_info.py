"""google.rpc.Status with RetryInfo: how gRPC says "not now, try again in a second".

The two messages are described here, field by field, so that no package is needed for them.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError as ProtobufDecodeError

__all__ = ["DETAILS_KEY", "pack_retry_info", "pack_status", "read_retry_delay"]

DETAILS_KEY: Final = "grpc-status-details-bin"
"""Trailing metadata that carries the status with its details."""

_TYPE_URL: Final = "type.googleapis.com/google.rpc.RetryInfo"


def _messages() -> tuple[type[Any], type[Any]]:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="kat_otel/rpc_status.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=[any_pb2.DESCRIPTOR.name, duration_pb2.DESCRIPTOR.name],
    )
    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, label=one, type=kinds.TYPE_INT32)
    status.field.add(name="message", number=2, label=one, type=kinds.TYPE_STRING)
    status.field.add(
        name="details",
        number=3,
        label=many,
        type=kinds.TYPE_MESSAGE,
        type_name=".google.protobuf.Any",
    )
    info = file.message_type.add(name="RetryInfo")
    info.field.add(
        name="retry_delay",
        number=1,
        label=one,
        type=kinds.TYPE_MESSAGE,
        type_name=".google.protobuf.Duration",
    )
    pool: Any = DescriptorPool()
    for known in (any_pb2, duration_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    found = (pool.FindMessageTypeByName(f"google.rpc.{name}") for name in ("Status", "RetryInfo"))
    status_class, info_class = (message_factory.GetMessageClass(d) for d in found)
    return status_class, info_class


_Status, _RetryInfo = _messages()


def pack_retry_info(code: int, message: str, delay_s: float) -> bytes:
    """Returns the status' bytes for the trailing metadata.

    Args:
        code: the gRPC status code's number.
        message: as in the status itself.
        delay_s: how long the sender should wait, seconds.
    """
    info = _RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = int(delay_s), int(delay_s % 1 * 1e9)
    status = _Status(code=code, message=message)
    status.details.add(type_url=_TYPE_URL, value=info.SerializeToString())
    return status.SerializeToString()


def pack_status(code: int, message: str) -> bytes:
    """Returns the bytes of a status without details, the body of OTLP/HTTP's errors."""
    return _Status(code=code, message=message).SerializeToString()


def read_retry_delay(details: bytes) -> float | None:
    """Returns the delay in seconds that a server asked for; None if it asked for none."""
    try:
        for detail in _Status.FromString(details).details:
            if detail.type_url == _TYPE_URL:
                delay = _RetryInfo.FromString(detail.value).retry_delay
                return max(0.0, delay.seconds + delay.nanos / 1e9)
    except ProtobufDecodeError:
        return None  # a server's broken courtesy is no courtesy; the status code still counts
    return None
