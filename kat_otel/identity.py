"""Trace and span ids that every rank derives alike, without talking to the others.

The mixing function is splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom
number generators, OOPSLA 2014), vectorised over columns.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "SpanIds",
    "nonce_of",
    "root_span_id",
    "span_ids",
    "trace_ids",
    "worker_step_ids",
]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ROOT = np.uint64(0x526F6F74)  # "Root": keeps the root's id apart from any rank's
_MASK: Final = 2**64 - 1


class SpanIds(NamedTuple):
    """The ids of one span, as unsigned numbers of 64 bits.

    Attributes:
        trace_hi, trace_lo: halves of the trace id.
        span: its own.
        parent: 0 if it has none.
    """

    trace_hi: int
    trace_lo: int
    span: int
    parent: int


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        x = x + _GOLDEN
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def nonce_of(text: str) -> int:
    """Returns the 64-bit nonce of an instance or a set of files, from its name."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def trace_ids(
    nonce: int, steps: NDArray[np.integer]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Returns upper and lower halves of the trace ids of ``steps``, uint64 ``(n,)`` each.

    The same on all ranks of the instance, different between instances and steps; never zero.
    """
    seed = np.full(len(steps), nonce, dtype=np.uint64)
    hi = _mix(seed)
    lo = _mix(hi ^ steps.astype(np.int64).view(np.uint64)) | np.uint64(1)
    return hi, lo


def span_ids(
    trace_lo: NDArray[np.uint64], rank: NDArray[np.integer], ordinal: NDArray[np.integer]
) -> NDArray[np.uint64]:
    """Returns span ids, uint64 ``(n,)``, from the trace, the rank and the span's place in it."""
    who = _mix(trace_lo ^ _mix(rank.astype(np.int64).view(np.uint64)))
    return _mix(who ^ ordinal.astype(np.int64).view(np.uint64)) | np.uint64(1)


def root_span_id(trace_lo: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the id of the step's root span: workers name it as parent, the processor emits it."""
    return _mix(trace_lo ^ _ROOT) | np.uint64(1)


def worker_step_ids(nonce: int, step: int, rank: int) -> SpanIds:
    """Returns the ids of a rank's worker step: those of the functions above, of one number each.

    A tenth of what arrays of one element cost.
    """
    high = _mixed(nonce)
    low = _mixed(high ^ step & _MASK) | 1
    span = _mixed(_mixed(low ^ _mixed(rank & _MASK))) | 1
    return SpanIds(high, low, span, _mixed(low ^ int(_ROOT)) | 1)


def _mixed(x: int) -> int:
    x = x + 0x9E3779B97F4A7C15 & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31
