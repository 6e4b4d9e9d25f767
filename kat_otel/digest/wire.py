"""A digest as bytes and back; the bytes are not trusted. ``docs/digests.md`` has every byte."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

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

__all__ = ["decode", "decode_checked", "encode", "read_headers"]

_MAGIC: Final = 0x444B  # "KD"
_SIGNED: Final = ("start_ns", "duration_ns", "gap_ns", "gap_max_ns", "sync_ns", "blocks")
_COUNTED: Final = ("resolution_ns", "kernels", "dropped", "launches")
_MAX_SHIFT: Final = 30
_OTHER_VERSION: Final = (
    f"digest of version {{version}}, version {VERSION} is known: run workers and processor of the "
    "same release"
)
_COUNTS: Final = ("records", "classes", "positions", "whats", "leads")


def encode(digest: Digest) -> bytes:
    """Returns the digest in at most :data:`MAX_BYTES`.

    What is too large is merged (:mod:`kat_otel.digest.fit`).
    """
    digest = fitted(digest)
    leads = bool((digest.lead >= 0).any())
    shorts = (digest.copy_ns, digest.spent, digest.lead, digest.time, digest.longest, digest.count)
    copy_ns, spent, lead, time, longest, count = _packed(shorts)
    shift = min(max(0, int(digest.ends.max(initial=0)).bit_length() - 32), _MAX_SHIFT)
    header = _HEADER.pack(
        _MAGIC,
        VERSION,
        digest.time.shape[1],
        len(digest.classes),
        len(digest.whats),
        shift,
        leads,
        len(digest.ends),
        *(min(number, 0xFFFF) for number in (digest.merged, digest.other_classes, digest.gap_at)),
        min(digest.order, 0xFFFFFFFF),
        digest.start_ns,
        digest.duration_ns,
        *(min(getattr(digest, name), 0xFFFFFFFF) for name in _COUNTED),
        digest.gap_ns,
        digest.gap_max_ns,
        digest.sync_ns,
        digest.blocks,
        *np.minimum(digest.copies, 0xFFFFFFFF).tolist(),
        *digest.copy_bytes.tolist(),
        *copy_ns.tolist(),
    )
    lead = np.where(digest.lead >= 0, lead, NO_LEAD).astype("<u2")
    parts = (
        digest.whats.astype(WHAT),
        digest.classes.astype("<u4"),
        np.clip(digest.ends >> shift, 0, 0xFFFFFFFF).astype("<u4"),
        spent,
        lead if leads else lead[:0],
        digest.what.astype("u1"),
        time,
        longest,
        count,
    )
    return b"".join((header, *(part.tobytes() for part in parts)))


def _packed(columns: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Returns :func:`pack_short` of each, flat: of all at once, for a step's columns are short."""
    flat = [column.reshape(-1) for column in columns]
    whole = pack_short(np.concatenate(flat)).astype("<u2", copy=False)
    ends = list(accumulate(map(len, flat)))
    return [whole[low:high] for low, high in zip([0, *ends[:-1]], ends, strict=True)]


class _Header(NamedTuple):
    """The header's fields that say what kind of step a digest is of, and where its parts lie."""

    version: int
    positions: int
    classes: int
    whats: int
    end_shift: int
    leads: bool
    records: int
    merged: int
    other_classes: int
    gap_at: int
    order: int
    start_ns: int
    duration_ns: int
    resolution_ns: int
    kernels: int
    dropped: int
    launches: int
    gap_ns: int
    gap_max_ns: int
    sync_ns: int
    blocks: int
    copies: tuple[int, ...]
    copy_bytes: tuple[int, ...]
    copy_ns: tuple[int, ...]  # as pack_short has it


_HEADER = struct.Struct("<HBBBBBBHHHHIqqIIIIqqqq4I4q4H")


def read_headers(digests: Sequence[bytes]) -> tuple[NDArray[Any], dict[int, DecodeError]]:
    """Reads the headers of many digests at once, each checked against its digest's length.

    Returns:
        The headers, dtype HEADER ``(n,)``, and what is wrong with those that are no digest of a
        known version, by place.
    """
    size = np.array([len(one) for one in digests], np.int64)
    fits = (size >= HEADER.itemsize) & (size <= MAX_BYTES)
    nothing = bytes(HEADER.itemsize)
    heads = [one[: HEADER.itemsize] if len(one) >= HEADER.itemsize else nothing for one in digests]
    found = np.frombuffer(b"".join(heads), HEADER)
    counts = {name: found[name].astype(np.int64) for name in _COUNTS}
    told = layout(**counts)
    least = found["copy_bytes"].min(axis=1)
    for name in _SIGNED:
        least = np.minimum(least, found[name])
    rules = (
        (~fits, f"a digest has {HEADER.itemsize} to {MAX_BYTES} bytes, this one {{size}}"),
        (found["magic"] != _MAGIC, "no digest: it begins with other bytes than KD"),
        (found["version"] != VERSION, _OTHER_VERSION),
        (
            (counts["leads"] > 1) | (found["end_shift"] > _MAX_SHIFT),
            "a digest whose header has numbers that no digest has",
        ),
        (told != size, "the header tells of {told} bytes, the digest has {size}"),
        (
            (counts["positions"] == 0) | (found["merged"] == 0),
            "a digest must have one position and one collective a record at least",
        ),
        (least < 0, "a digest with negative times or bytes"),
    )
    wrong: dict[int, DecodeError] = {}
    if not any(broken.any() for broken, _ in rules):
        return found, wrong
    for broken, text in rules:
        for at in np.flatnonzero(broken).tolist():
            said = {"size": size[at], "told": told[at], "version": found["version"][at]}
            wrong.setdefault(at, DecodeError(text.format(**said)))
    return found, wrong


def decode(data: bytes) -> Digest:
    """Reads a digest.

    Raises:
        DecodeError: the bytes are no digest of a known version, or contradict themselves.
    """
    _, wrong = read_headers([data])
    if wrong:
        raise wrong[0]
    return decode_checked(data)


def decode_checked(data: bytes) -> Digest:
    """Reads a digest in whose header :func:`read_headers` found nothing wrong.

    Raises:
        DecodeError: the bytes contradict themselves.
    """
    _, *said = _HEADER.unpack_from(data)
    header = _Header._make([*said[:21], tuple(said[21:25]), tuple(said[25:29]), tuple(said[29:])])
    at = HEADER.itemsize

    def column(dtype: Any, count: int) -> NDArray[Any]:
        nonlocal at
        values = np.frombuffer(data, dtype, count, at)
        at += values.nbytes
        return values

    count, shape = header.records, (header.classes, header.positions)
    whats, classes = column(WHAT, header.whats), column("<u4", shape[0])
    ends = column("<u4", count).astype(np.int64) << header.end_shift
    spent = unpack_short(column("<u2", count))
    lead = np.full(count, -1, np.int64)
    if header.leads:
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
        copies=np.array(header.copies, np.int64),
        copy_bytes=np.array(header.copy_bytes, np.int64),
        copy_ns=unpack_short(np.array(header.copy_ns, np.uint16)),
        start_ns=header.start_ns,
        duration_ns=header.duration_ns,
        order=header.order,
        resolution_ns=header.resolution_ns,
        kernels=header.kernels,
        dropped=header.dropped,
        launches=header.launches,
        gap_ns=header.gap_ns,
        gap_max_ns=header.gap_max_ns,
        gap_at=header.gap_at,
        sync_ns=header.sync_ns,
        blocks=header.blocks,
        merged=header.merged,
        other_classes=header.other_classes,
    )
