"""OpAMP's messages, as far as the control channel needs them: wire compatible, standard library.

Field numbers are those of opamp.proto (https://opentelemetry.io/docs/specs/opamp/); the
tests hold both directions to the classes of ``opentelemetry-opamp-client``. Unknown fields are
skipped, as protobuf wants it. Workers import this, so it needs no protobuf library.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kat_otel.errors import DecodeError
from kat_otel.wire import delimited, read_fields, varint

__all__ = [
    "MAX_MESSAGE_BYTES",
    "AgentToServer",
    "CustomMessage",
    "ServerToAgent",
]

MAX_MESSAGE_BYTES: Final = 65_536

AGENT_REPORTS_STATUS: Final = 1
SERVER_ACCEPTS_STATUS: Final = 1
BAD_REQUEST: Final = 1
UNAVAILABLE: Final = 2

_VARINT, _BYTES = 0, 2


@dataclass(frozen=True, slots=True)
class CustomMessage:
    """What has no message of its own in OpAMP: a capability, a type within it, and bytes."""

    capability: str
    type: str
    data: bytes

    def encode(self) -> bytes:
        """Returns the message's bytes."""
        return b"".join(
            (
                _delimited(1, self.capability.encode()),
                _delimited(2, self.type.encode()),
                _delimited(3, self.data),
            )
        )

    @staticmethod
    def decode(data: bytes) -> CustomMessage:
        """Reads a message.

        Raises:
            DecodeError: the bytes are no such message.
        """
        found = dict(_fields(data))
        return CustomMessage(
            _text(found.get((1, _BYTES), b"")),
            _text(found.get((2, _BYTES), b"")),
            _bytes(found.get((3, _BYTES), b"")),
        )


@dataclass(frozen=True, slots=True)
class AgentToServer:
    """What a worker says.

    Attributes:
        instance_uid: 16 bytes that name the process (OpAMP's agent, not ``kat.instance.id``).
        sequence_num: counts the messages of the process.
        custom_capabilities: what it understands beyond OpAMP.
        custom_message: what it has to say beyond OpAMP.
    """

    instance_uid: bytes
    sequence_num: int = 0
    custom_capabilities: tuple[str, ...] = ()
    custom_message: CustomMessage | None = None

    def encode(self) -> bytes:
        """Returns the message's bytes."""
        return b"".join(
            (
                _delimited(1, self.instance_uid),
                _number(2, self.sequence_num),
                _number(4, AGENT_REPORTS_STATUS),
                _capabilities(12, self.custom_capabilities),
                _delimited(13, self.custom_message.encode()) if self.custom_message else b"",
            )
        )

    @staticmethod
    def decode(data: bytes) -> AgentToServer:
        """Reads a message.

        Raises:
            DecodeError: the bytes are no such message, or too many.
        """
        found = dict(_fields(data))
        message = found.get((13, _BYTES))
        return AgentToServer(
            _bytes(found.get((1, _BYTES), b"")),
            _integer(found.get((2, _VARINT), 0)),
            _read_capabilities(found.get((12, _BYTES), b"")),
            None if message is None else CustomMessage.decode(_bytes(message)),
        )


@dataclass(frozen=True, slots=True)
class ServerToAgent:
    """What the server answers.

    Attributes:
        instance_uid: of the process that is answered.
        error: BAD_REQUEST or UNAVAILABLE; 0 for none.
        error_message: what was wrong.
        retry_after_ns: how long to wait, with UNAVAILABLE.
        custom_capabilities: what the server understands beyond OpAMP.
        custom_message: what it has to say beyond OpAMP.
    """

    instance_uid: bytes
    error: int = 0
    error_message: str = ""
    retry_after_ns: int = 0
    custom_capabilities: tuple[str, ...] = ()
    custom_message: CustomMessage | None = None

    def encode(self) -> bytes:
        """Returns the message's bytes."""
        error = b""
        if self.error:
            retry = _delimited(3, _number(1, self.retry_after_ns)) if self.retry_after_ns else b""
            error = _number(1, self.error) + _delimited(2, self.error_message.encode()) + retry
        return b"".join(
            (
                _delimited(1, self.instance_uid),
                _delimited(2, error) if error else b"",
                _number(7, SERVER_ACCEPTS_STATUS),
                _capabilities(10, self.custom_capabilities),
                _delimited(11, self.custom_message.encode()) if self.custom_message else b"",
            )
        )

    @staticmethod
    def decode(data: bytes) -> ServerToAgent:
        """Reads a message.

        Raises:
            DecodeError: the bytes are no such message, or too many.
        """
        found = dict(_fields(data))
        error = dict(_fields(_bytes(found.get((2, _BYTES), b""))))
        retry = dict(_fields(_bytes(error.get((3, _BYTES), b""))))
        message = found.get((11, _BYTES))
        return ServerToAgent(
            _bytes(found.get((1, _BYTES), b"")),
            _integer(error.get((1, _VARINT), 0)),
            _text(error.get((2, _BYTES), b"")),
            _integer(retry.get((1, _VARINT), 0)),
            _read_capabilities(found.get((10, _BYTES), b"")),
            None if message is None else CustomMessage.decode(_bytes(message)),
        )


def _number(field: int, number: int) -> bytes:
    return varint(field << 3 | _VARINT) + varint(number)


def _delimited(field: int, data: bytes) -> bytes:
    return delimited(varint(field << 3 | _BYTES), data)


def _capabilities(field: int, names: tuple[str, ...]) -> bytes:
    if not names:
        return b""
    return _delimited(field, b"".join(_delimited(1, name.encode()) for name in names))


def _read_capabilities(data: int | bytes) -> tuple[str, ...]:
    return tuple(_text(value) for key, value in _fields(_bytes(data)) if key == (1, _BYTES))


def _fields(data: bytes) -> Iterator[tuple[tuple[int, int], int | bytes]]:
    """Yields (field number, wire type) and value of each field; of groups there are none."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise DecodeError(f"an OpAMP message of {len(data)} bytes, at most {MAX_MESSAGE_BYTES}")
    try:
        yield from read_fields(data)
    except DecodeError as error:
        raise DecodeError(f"no OpAMP message: {error}") from error


def _bytes(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b""


def _integer(value: int | bytes) -> int:
    return value if isinstance(value, int) else 0


def _text(value: int | bytes) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError as error:
        raise DecodeError("an OpAMP text that is not UTF-8") from error
