"""A digest as bytes and back; the bytes are not trusted. ``docs/digests.md`` has every byte."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.digest.fit import fitted
from kat_otel.digest.form import (
    HEADER,
    MAX_BYTES,
    NO_LEAD,
    VERSION,
    WHAT,
    Digest,
    layout,
    pack_short,
    unpack_short,
)
from kat_otel.errors import DecodeError

__all__ = ["decode", "encode", "read_header"]

_MAGIC: Final = 0x444B  # "KD"
_SIGNED: Final = (
    "start_ns",
    "duration_ns",
    "gap_ns",
    "gap_max_ns",
    "sync_ns",
    "blocks",
    "copy_bytes",
)


def encode(digest: Digest) -> bytes:
    """Returns the digest in at most :data:`MAX_BYTES`.

    What is too large is merged (:mod:`kat_otel.digest.fit`).
    """
    digest = fitted(digest)
    leads = bool((digest.lead >= 0).any())
    header = np.zeros((), HEADER)
    shift = max(0, int(digest.ends.max(initial=0)).bit_length() - 32)
    said: dict[str, Any] = {
        "magic": _MAGIC,
        "version": VERSION,
        "positions": digest.time.shape[1],
        "classes": len(digest.classes),
        "whats": len(digest.whats),
        "end_shift": shift,
        "leads": leads,
        "records": len(digest.ends),
        "copies": np.minimum(digest.copies, 0xFFFFFFFF),
        "copy_ns": pack_short(digest.copy_ns),
    }
    for name in ("merged", "other_classes", "gap_at"):
        said[name] = min(getattr(digest, name), 0xFFFF)
    for name in ("order", "resolution_ns", "kernels", "dropped", "launches"):
        said[name] = min(getattr(digest, name), 0xFFFFFFFF)
    for name in _SIGNED:
        said[name] = getattr(digest, name)
    for name, value in said.items():
        header[name] = value
    lead = np.where(digest.lead >= 0, pack_short(digest.lead), NO_LEAD).astype("<u2")
    parts = (
        header,
        digest.whats.astype(WHAT),
        digest.classes.astype("<u4"),
        (np.maximum(digest.ends, 0) >> shift).astype("<u4"),
        pack_short(digest.spent).astype("<u2"),
        lead if leads else lead[:0],
        digest.what.astype("u1"),
        pack_short(digest.time).astype("<u2"),
        pack_short(digest.longest).astype("<u2"),
        pack_short(digest.count).astype("<u2"),
    )
    return b"".join(part.tobytes() for part in parts)


def read_header(data: bytes) -> Any:
    """Returns the header of a digest, checked against its length.

    Raises:
        DecodeError: no digest, an unknown version, or a length that is not the header's.
    """
    if len(data) < HEADER.itemsize or len(data) > MAX_BYTES:
        raise DecodeError(
            f"a digest has {HEADER.itemsize} to {MAX_BYTES} bytes, this one {len(data)}"
        )
    header = np.frombuffer(data, HEADER, 1)[0]
    if header["magic"] != _MAGIC:
        raise DecodeError("no digest: it begins with other bytes than KD")
    if header["version"] != VERSION:
        raise DecodeError(
            f"digest of version {header['version']}, version {VERSION} is known: "
            "run workers and processor of the same release"
        )
    if layout(header) != len(data) or header["leads"] > 1 or header["end_shift"] > 31:
        raise DecodeError(f"the header tells of {layout(header)} bytes, the digest has {len(data)}")
    if not header["positions"] or not header["merged"]:
        raise DecodeError("a digest must have one position and one collective a record at least")
    if min(header[name].min() for name in _SIGNED) < 0:
        raise DecodeError("a digest with negative times or bytes")
    return header


def decode(data: bytes) -> Digest:
    """Reads a digest.

    Raises:
        DecodeError: the bytes are no digest of a known version, or contradict themselves.
    """
    header = read_header(data)
    at = HEADER.itemsize

    def column(dtype: Any, count: int) -> NDArray[Any]:
        nonlocal at
        values = np.frombuffer(data, dtype, count, at)
        at += values.nbytes
        return values

    count, shape = int(header["records"]), (int(header["classes"]), int(header["positions"]))
    whats, classes = column(WHAT, int(header["whats"])), column("<u4", shape[0])
    ends = column("<u4", count).astype(np.int64) << int(header["end_shift"])
    spent = unpack_short(column("<u2", count))
    lead = np.full(count, -1, np.int64)
    if header["leads"]:
        raw = column("<u2", count)
        lead = np.where(raw == NO_LEAD, -1, unpack_short(raw))
    what = column("u1", count).astype(np.int64)
    cells = [unpack_short(column("<u2", shape[0] * shape[1])).reshape(shape) for _ in range(3)]
    if count and int(what.max()) >= len(whats):
        raise DecodeError(f"a collective of kind {what.max()}, the digest has {len(whats)} kinds")
    return Digest(
        ends=ends,
        spent=spent,
        lead=lead,
        what=what,
        whats=whats,
        classes=classes,
        time=cells[0],
        longest=cells[1],
        count=cells[2],
        copies=header["copies"].astype(np.int64),
        copy_bytes=header["copy_bytes"].astype(np.int64),
        copy_ns=unpack_short(header["copy_ns"]),
        start_ns=int(header["start_ns"]),
        duration_ns=int(header["duration_ns"]),
        order=int(header["order"]),
        resolution_ns=int(header["resolution_ns"]),
        kernels=int(header["kernels"]),
        dropped=int(header["dropped"]),
        launches=int(header["launches"]),
        gap_ns=int(header["gap_ns"]),
        gap_max_ns=int(header["gap_max_ns"]),
        gap_at=int(header["gap_at"]),
        sync_ns=int(header["sync_ns"]),
        blocks=int(header["blocks"]),
        merged=int(header["merged"]),
        other_classes=int(header["other_classes"]),
    )
