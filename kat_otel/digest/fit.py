"""Makes a digest fit: what is merged, in which order, the same on all ranks.

Positions are halved down to one; the classes of least time are added to OTHER; launch leads are
left out; rare kinds of collectives lose their name; collectives are merged in pairs, fours and so
on. The digest says what was merged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from kat_otel.digest.form import MAX_BYTES, OTHER, WHAT, Digest, Int64, layout
from kat_otel.kernels import Semantics

__all__ = ["fitted"]

_MAX_TABLE: Final = 255
_FEW_CLASSES: Final = 32
_FEW_WHATS: Final = 32


def fitted(digest: Digest) -> Digest:
    """Returns the digest, merged until it takes at most ``MAX_BYTES``."""
    if len(digest.whats) > _MAX_TABLE:
        digest = _few_whats(digest)
    if len(digest.classes) > _MAX_TABLE:
        digest = _few_classes(digest, _MAX_TABLE)
    size = _size(digest)
    while size > MAX_BYTES and digest.time.shape[1] > 1:
        digest = _half_positions(digest)
        size = _size(digest)
    excess = size - MAX_BYTES
    if excess <= 0:
        return digest
    cost = 4 + 6 * digest.time.shape[1]
    if len(digest.classes) > _FEW_CLASSES:
        keep = max(_FEW_CLASSES, len(digest.classes) - 1 - excess // cost)
        digest = _few_classes(digest, keep)
    if _size(digest) > MAX_BYTES:
        digest = replace(digest, lead=np.full(len(digest.lead), -1, np.int64))
    if _size(digest) > MAX_BYTES and len(digest.whats) > _FEW_WHATS:
        digest = _few_whats(digest)
    while _size(digest) > MAX_BYTES:
        digest = _pairs(digest)
    return digest


def _size(digest: Digest) -> int:
    return layout(
        records=len(digest.ends),
        classes=len(digest.classes),
        positions=digest.time.shape[1],
        whats=len(digest.whats),
        leads=bool((digest.lead >= 0).any()),
    )


def _half_positions(digest: Digest) -> Digest:
    """Joins positions two by two."""
    shape = (len(digest.classes), digest.time.shape[1] // 2, 2)
    return replace(
        digest,
        time=digest.time.reshape(shape).sum(axis=2),
        longest=digest.longest.reshape(shape).max(axis=2),
        count=digest.count.reshape(shape).sum(axis=2),
    )


def _few_classes(digest: Digest, keep: int) -> Digest:
    """Keeps the ``keep - 1`` classes of most time; the others become OTHER."""
    total = digest.time.sum(axis=1)
    total[digest.classes == OTHER] = -1
    order = np.lexsort((digest.classes, -total))
    kept, gone = np.sort(order[: keep - 1]), order[keep - 1 :]

    def joined(values: Int64, join: Any) -> Int64:
        return np.concatenate([join(values[gone], axis=0)[None], values[kept]])

    merged = digest.other_classes + int((digest.classes[gone] != OTHER).sum())
    return replace(
        digest,
        classes=np.concatenate([[np.uint32(OTHER)], digest.classes[kept]]).astype(np.uint32),
        time=joined(digest.time, np.sum),
        longest=joined(digest.longest, np.max),
        count=joined(digest.count, np.sum),
        other_classes=merged,
    )


def _few_whats(digest: Digest) -> Digest:
    """Keeps the commonest kinds of collectives; the others lose family and communicator.

    Without a communicator they are not taken for meetings: pairwise, as far as is known.
    """
    uses = np.bincount(digest.what, minlength=len(digest.whats))
    kept = np.sort(np.argsort(-uses, kind="stable")[: _FEW_WHATS - 1])
    place = np.full(len(digest.whats), len(kept), np.int64)
    place[kept] = np.arange(len(kept))
    unknown = np.zeros(1, WHAT)
    unknown["semantics"] = Semantics.PAIRWISE
    whats = np.concatenate([digest.whats[kept], unknown])
    return replace(digest, whats=whats, what=place[digest.what])


def _pairs(digest: Digest) -> Digest:
    """Merges collectives two by two: the later end, durations of both; a meeting if both are."""
    count = len(digest.ends)
    first = np.arange(0, count, 2)
    second = np.minimum(first + 1, count - 1)
    pairwise = digest.whats["semantics"][digest.what] == Semantics.PAIRWISE
    return replace(
        digest,
        ends=np.maximum.reduceat(digest.ends, first),
        spent=np.add.reduceat(digest.spent, first),
        lead=digest.lead[first],
        what=digest.what[np.where(pairwise[second], second, first)],
        merged=digest.merged * 2,
    )
