"""Compressed requests, unpacked within a limit: a small body must not become a large memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import zstandard

from kat_otel.errors import DecodeError, KatError

__all__ = ["ENCODINGS", "TooLargeError", "guess_encoding", "unpack"]

ENCODINGS: Final = ("gzip", "zstd", "deflate", "identity")
"""Content codings that :func:`unpack` knows; ``deflate`` is the zlib form, as HTTP has it."""

_MEMBERS: Final = 16
"""Streams joined in one body; senders make one, and each costs a copy of what follows it."""
_ZSTD_WINDOW: Final = 2**23
"""What RFC 9659 allows over HTTP; a larger window is memory that the sender makes us hold."""
_ZSTD_SLICE: Final = 512
"""Fed at once: a block of 128 KiB may be packed into 4 bytes, so this yields 16 MiB at most."""


class TooLargeError(KatError):
    """A request is larger than ``receiver.max_recv_msg_size_mib``; sent again it still is."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the request is larger than max ({limit:,} bytes unpacked) — send smaller batches, or "
            "raise receiver.max_recv_msg_size_mib"
        )


def unpack(data: bytes, encoding: str, limit: int) -> bytes:
    """Returns the unpacked body.

    Args:
        data: as it came.
        encoding: one of :data:`ENCODINGS`.
        limit: bytes that it may have unpacked. At most 16 MiB more are held on the way.

    Raises:
        DecodeError: damaged, cut off, or followed by something else.
        TooLargeError: more than ``limit`` bytes.
    """
    read = _READERS.get(encoding, _identity)
    pieces: list[bytes] = []
    room, rest = limit, data
    for _ in range(_MEMBERS):
        try:
            piece, rest = read(rest, room)
        except (zlib.error, zstandard.ZstdError) as error:
            raise DecodeError(f"body of {len(data):,} bytes: no {encoding} ({error})") from error
        room -= len(piece)
        if room < 0:
            raise TooLargeError(limit)
        pieces.append(piece)
        if not rest:
            return piece if len(pieces) == 1 else b"".join(pieces)
    raise DecodeError(f"body of {len(data):,} bytes: more than {_MEMBERS} compressed streams")


def guess_encoding(data: bytes) -> str:
    """Returns the encoding of a gRPC message, whose header for it gRPC keeps to itself.

    No OTLP request begins with these bytes: gzip's first has no valid wire type, and zlib's would
    be a field 15, which OTLP does not have.
    """
    if data[:2] == b"\x1f\x8b":
        return "gzip"
    if data[:1] == b"\x78" and len(data) > 2 and int.from_bytes(data[:2], "big") % 31 == 0:
        return "deflate"
    return "identity"


def _identity(data: bytes, room: int) -> tuple[bytes, bytes]:
    del room  # the caller looks at the length
    return data, b""


def _zlib(data: bytes, room: int, bits: int) -> tuple[bytes, bytes]:
    """Returns the first stream's content, or one byte more than ``room``, and what follows it."""
    stream = zlib.decompressobj(bits)
    content = stream.decompress(data, room + 1)
    if not stream.eof and len(content) <= room:
        raise _cut_off(data)
    return content, stream.unused_data


def _zstd(data: bytes, room: int) -> tuple[bytes, bytes]:
    """As :func:`_zlib`; up to 16 MiB more than ``room``."""
    stream: Any = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    pieces: list[bytes] = []
    size = 0
    for at in range(0, len(data), _ZSTD_SLICE):
        piece = stream.decompress(data[at : at + _ZSTD_SLICE])
        pieces.append(piece)
        size += len(piece)
        if stream.eof or size > room:
            return b"".join(pieces), bytes(stream.unused_data) + data[at + _ZSTD_SLICE :]
    raise _cut_off(data)


def _cut_off(data: bytes) -> DecodeError:
    return DecodeError(f"body of {len(data):,} bytes: cut off before its compressed stream ends")


_READERS: Final[dict[str, Callable[[bytes, int], tuple[bytes, bytes]]]] = {
    "gzip": partial(_zlib, bits=31),
    "deflate": partial(_zlib, bits=15),
    "zstd": _zstd,
}
