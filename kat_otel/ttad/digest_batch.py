"""Many digests of equal work as dense arrays: rank x step, decoded together.

Equal steps have equal layouts (``kat_otel.digest``), so the bytes of all digests are one
matrix and a column of it is decoded in one go. Digests whose classes differ are decoded one by
one and put side by side by the classes' hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.digest import Digest, decode_checked, read_headers
from kat_otel.digest.form import HEADER, NO_LEAD, WHAT, unpack_short
from kat_otel.errors import DecodeError
from kat_otel.kernels import Semantics
from kat_otel.ttad.digest_loops import medians

__all__ = ["DigestBatch", "batch_of", "read_batch", "read_batches"]

Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class DigestBatch:
    """``S`` steps of ``R`` ranks with ``C`` collectives and ``K`` kernel classes.

    Attributes:
        present: which digests are there, bool ``(S, R)``; elsewhere all is 0.
        ends, spent, lead: of the collectives, int64 ``(S, R, C)``, as in ``Digest``.
        group: which ranks meet at a collective, int64 ``(C, R)``; -1: no meeting.
        classes: hashes of the kernel classes, uint32 ``(K,)``.
        time: of the kernel classes, float64 ``(S, R, K)`` ns.
        header: the headers, dtype HEADER ``(S, R)``.
    """

    present: NDArray[np.bool_]
    ends: Int64
    spent: Int64
    lead: Int64
    group: Int64
    classes: NDArray[np.uint32]
    time: NDArray[np.float64]
    header: NDArray[Any]

    @property
    def length_ns(self) -> NDArray[np.float64]:
        """Length of each step: the median of its ranks' worker steps, float64 ``(S,)``."""
        lengths = self.header["duration_ns"].astype(np.float64)
        if self.present.all():
            return medians(np.ascontiguousarray(lengths.T)[:, :, None])[:, 0]
        return np.nanmedian(np.where(self.present, lengths, np.nan), axis=1)

    def __len__(self) -> int:
        return len(self.present)

    def steps(self, first: int, last: int) -> DigestBatch:
        """Returns the steps from ``first`` to ``last`` (excluded), as views."""
        if (first, last) == (0, len(self)):
            return self
        part = slice(first, last)
        return DigestBatch(
            present=self.present[part],
            ends=self.ends[part],
            spent=self.spent[part],
            lead=self.lead[part],
            group=self.group,
            classes=self.classes,
            time=self.time[part],
            header=self.header[part],
        )

    def with_classes(self, classes: NDArray[np.uint32]) -> DigestBatch:
        """Returns the batch with other kernel classes; what is none of them is left out."""
        time = np.zeros((*self.present.shape, len(classes)))
        _, here, there = np.intersect1d(self.classes, classes, return_indices=True)
        time[:, :, there] = self.time[:, :, here]
        return replace(self, classes=classes, time=time)


def batch_of(digests: Sequence[Sequence[bytes]]) -> DigestBatch:
    """Reads the digests of ``S`` steps, each of the same ``R`` ranks with equal layouts.

    Raises:
        DecodeError: bytes that are no digest, or digests of different layouts.
    """
    ranks = len(digests[0])
    return read_batch([one for step in digests for one in step], (len(digests), ranks))


def read_batch(
    flat: Sequence[bytes], shape: tuple[int, int], headers: NDArray[Any] | None = None
) -> DigestBatch:
    """Reads the digests of ``shape`` (steps, ranks), ranks side by side.

    Args:
        flat: the digests.
        shape: steps and ranks.
        headers: theirs, as :func:`read_headers` gives them, where they were read before.

    Raises:
        DecodeError: bytes that are no digest, or whose collectives differ.
    """
    header = _checked(flat) if headers is None else headers
    matrix = _alike(flat, header)
    if matrix is None:
        return _one_by_one(flat, shape, header)
    return _of_matrix(matrix, shape, header)


def read_batches(
    flat: Sequence[bytes], shape: tuple[int, int], headers: NDArray[Any]
) -> list[DigestBatch]:
    """Reads the digests of ``shape`` (steps, ranks) in as few batches as possible, in order.

    Steps are one batch if they have one layout and the same ranks meet at each collective; else
    every step is one of its own.

    Args:
        flat: the digests, rank by rank and step by step.
        shape: steps and ranks.
        headers: theirs, as :func:`read_headers` gives them.

    Raises:
        DecodeError: a digest contradicts itself.
    """
    steps, ranks = shape
    matrix = _alike(flat, headers)
    if matrix is not None and _meet_alike(matrix, shape, headers[0]):
        return [_of_matrix(matrix, shape, headers)]
    parts = (slice(first, first + ranks) for first in range(0, steps * ranks, ranks))
    return [read_batch(flat[part], (1, ranks), headers[part]) for part in parts]


def _alike(flat: Sequence[bytes], header: NDArray[Any]) -> Bytes | None:
    """Returns the digests as rows of bytes, uint8 ``(n, size)``; None if their layouts differ."""
    size = len(flat[0])
    if any(len(one) != size for one in flat):
        return None
    matrix = np.frombuffer(b"".join(flat), np.uint8).reshape(len(flat), size)
    hashes = _hashes(header[0])
    # Bytes 0 to 11 and 16 to 19 say version, counts, merging and sequence of the collectives.
    for part in (matrix[:, :12], matrix[:, 16:20], matrix[:, hashes]):
        if (part[1:] != part[0]).any():
            return None
    return matrix


def _meet_alike(matrix: Bytes, shape: tuple[int, int], first: Any) -> bool:
    """Returns whether the kinds of the collectives are, rank by rank, those of the first step."""
    wide = matrix.reshape(*shape, -1)
    count = int(first["records"])
    kinds = _hashes(first).stop + count * (6 + 2 * int(first["leads"]))
    parts = slice(HEADER.itemsize, _hashes(first).start), slice(kinds, kinds + count)
    return not any((wide[1:, :, part] != wide[0, :, part]).any() for part in parts)


def _hashes(first: Any) -> slice:
    """Returns where the hashes of the kernel classes stand."""
    begin = HEADER.itemsize + 12 * int(first["whats"])
    return slice(begin, begin + 4 * int(first["classes"]))


def _of_matrix(matrix: Bytes, shape: tuple[int, int], header: NDArray[Any]) -> DigestBatch:
    """Decodes digests of one layout, column by column."""
    first, hashes = header[0], _hashes(header[0])
    count, classes = int(first["records"]), int(first["classes"])
    whats = matrix[:, HEADER.itemsize : hashes.start].copy().view(WHAT)
    at = hashes.stop

    def column(dtype: str, width: int) -> NDArray[Any]:
        nonlocal at
        wide = width * np.dtype(dtype).itemsize
        values = np.ascontiguousarray(matrix[:, at : at + wide]).view(dtype)
        at += wide
        return values

    ends = column("<u4", count).astype(np.int64) << int(first["end_shift"])
    spent = unpack_short(column("<u2", count))
    lead = np.full(spent.shape, -1, np.int64)
    if int(first["leads"]):
        raw = column("<u2", count)
        lead = np.where(raw == NO_LEAD, -1, unpack_short(raw))
    what = column("u1", count)
    if count and int(what.max()) >= whats.shape[1]:
        raise DecodeError("a collective of a kind that its digest does not have")
    time = unpack_short(column("<u2", classes * int(first["positions"])))
    time = time.reshape(len(matrix), classes, int(first["positions"])).sum(axis=2)
    steps, ranks = shape
    ends, spent, lead = (v.reshape(steps, ranks, count) for v in (ends, spent, lead))
    last = slice((steps - 1) * ranks, steps * ranks)
    return DigestBatch(
        present=np.ones(shape, np.bool_),
        ends=ends,
        spent=spent,
        lead=lead,
        group=_groups(whats[last], what[last].astype(np.int64)),
        classes=matrix[0, hashes].copy().view("<u4").astype(np.uint32),
        time=time.reshape(steps, ranks, classes).astype(np.float64),
        header=header.reshape(shape),
    )


def _checked(flat: Sequence[bytes]) -> NDArray[Any]:
    headers, wrong = read_headers(flat)
    if wrong:
        raise wrong[min(wrong)]
    return headers


def _one_by_one(flat: Sequence[bytes], shape: tuple[int, int], header: NDArray[Any]) -> DigestBatch:
    """Decodes digests of the same collectives whose classes differ, class by class aligned."""
    read = [decode_checked(one) for one in flat]
    orders = {(d.order, len(d.ends), d.merged) for d in read}
    if len(orders) > 1:
        raise DecodeError(f"digests of {len(orders)} different sequences of collectives in one")
    classes = np.unique(np.concatenate([d.classes for d in read]))
    time = np.zeros((len(read), len(classes)))
    for row, digest in enumerate(read):
        time[row, np.searchsorted(classes, digest.classes)] = digest.time.sum(axis=1)
    steps, ranks = shape

    def dense(values: list[Int64]) -> Int64:
        return np.stack(values).reshape(steps, ranks, -1)

    last = read[(steps - 1) * ranks :]
    return DigestBatch(
        present=np.ones(shape, np.bool_),
        ends=dense([d.ends for d in read]),
        spent=dense([d.spent for d in read]),
        lead=dense([d.lead for d in read]),
        group=_groups_of(last),
        classes=classes,
        time=time.reshape(steps, ranks, len(classes)),
        header=header.reshape(shape),
    )


def _groups_of(digests: Sequence[Digest]) -> Int64:
    most = max((len(d.whats) for d in digests), default=0)
    whats = np.zeros((len(digests), most), WHAT)
    for row, digest in enumerate(digests):
        whats[row, : len(digest.whats)] = digest.whats
    return _groups(whats, np.stack([d.what for d in digests]))


def _groups(whats: NDArray[Any], what: Int64) -> Int64:
    """Returns which ranks meet at each collective, int64 ``(C, R)``; -1: no common barrier."""
    rows = np.arange(len(what))[:, None]
    if not what.size:
        return np.full(what.T.shape, -1, np.int64)
    group = whats["group"][rows, what].astype(np.int64)
    barrier = whats["semantics"][rows, what] == Semantics.BARRIER
    if (group == group[:1]).all():
        return np.ascontiguousarray(np.where(barrier, 0, -1).T)
    numbered = np.zeros(group.shape, np.int64)
    for c in range(group.shape[1]):
        _, place = np.unique(group[:, c], return_inverse=True)
        numbered[:, c] = place.reshape(-1)
    return np.ascontiguousarray(np.where(barrier, numbered, -1).T)
