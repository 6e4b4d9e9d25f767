"""One file of the state directory: an instance's state under the mark of its owner.

A file is replaced as a whole and synced: whoever reads it sees the old one or the new one, also
when the writer was killed half-way. A checksum tells rot from content.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple

from kat_otel.processor.shared_folder import replace_file

__all__ = ["MAX_BYTES", "Damaged", "Kept", "path_of", "read", "read_mark", "replace"]

MAX_BYTES: Final = 64 << 20
"""Of one file; what is larger is no state of ours."""

_MAGIC: Final = b"KATKEEP\x01"
"""The last byte is the version."""
_HEAD: Final = struct.Struct("<8sQ16sIQI")
"""Magic, epoch, owner, length of the instance's name, length of the state, checksum of both."""
_MAX_NAME: Final = 64 << 10


class Damaged(ValueError):  # noqa: N818 - what the file is, not what went wrong
    """The file is not what was written, or of another version; the message says how."""


class Kept(NamedTuple):
    """What a file holds.

    Attributes:
        epoch: grows with every change of owner.
        owner: whose it is, 16 random bytes of one store.
        data: the state, empty before the first is saved.
    """

    epoch: int
    owner: bytes
    data: bytes


def path_of(directory: Path, instance: str) -> Path:
    """Returns where an instance's state lies: names may hold anything, so a hash stands in."""
    digest = hashlib.blake2b(instance.encode(errors="surrogatepass"), digest_size=16)
    return directory / f"{digest.hexdigest()}.state"


def read_mark(path: Path) -> Kept | None:
    """Returns epoch and owner alone, None if there is no file.

    Raises:
        Damaged: the file has no valid head.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
    except FileNotFoundError:
        return None
    magic, epoch, owner, *_ = _unpacked(head)
    _check_magic(magic)
    return Kept(epoch, owner, b"")


def read(path: Path, instance: str) -> Kept | None:
    """Returns what was kept for an instance, None if there is no file.

    Raises:
        Damaged: it is not what was written for this instance.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise Damaged(f"{size:,} bytes, more than the {MAX_BYTES:,} of any state")
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    magic, epoch, owner, name_size, size, checksum = _unpacked(raw[: _HEAD.size])
    _check_magic(magic)
    if len(raw) != _HEAD.size + name_size + size:
        raise Damaged(f"{len(raw):,} bytes, not {_HEAD.size + name_size + size:,}: cut off")
    body = memoryview(raw)[_HEAD.size :]
    if zlib.crc32(body) != checksum:
        raise Damaged("its checksum is wrong")
    if bytes(body[:name_size]) != instance.encode(errors="surrogatepass"):
        raise Damaged("it is of another instance")
    return Kept(epoch, owner, bytes(body[name_size:]))


def replace(path: Path, instance: str, kept: Kept) -> None:
    """Puts a state in place of what was there; on return it is on disk.

    Raises:
        OSError: the disk does not take it; what was there stays.
        ValueError: it is too large.
    """
    name = instance.encode(errors="surrogatepass")
    if len(name) > _MAX_NAME:
        raise ValueError(f"a name of {len(name):,} bytes, at most {_MAX_NAME:,} are kept")
    if _HEAD.size + len(name) + len(kept.data) > MAX_BYTES:
        raise ValueError(f"{len(kept.data):,} bytes, more than the {MAX_BYTES:,} of any state")
    checksum = zlib.crc32(kept.data, zlib.crc32(name))
    head = _HEAD.pack(_MAGIC, kept.epoch, kept.owner, len(name), len(kept.data), checksum)
    replace_file(path, (head + name, kept.data))


def _unpacked(head: bytes) -> tuple[bytes, int, bytes, int, int, int]:
    if len(head) < _HEAD.size:
        raise Damaged(f"{len(head)} bytes: cut off")
    return _HEAD.unpack(head)


def _check_magic(magic: bytes) -> None:
    if magic[:7] != _MAGIC[:7]:
        raise Damaged("no state of ours")
    if magic != _MAGIC:
        raise Damaged(f"version {magic[7]} of the form, not {_MAGIC[7]}")
