"""What waits to be sent, bounded in bytes: whole steps go overboard first, digests last."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.endpoints import Signal
from kat_otel.instrumentation.sending.pack import Buffer

__all__ = ["Outbox", "Parcel"]

Kind = Literal["digests", "metrics", "whole"]

_OVERBOARD: Final[tuple[Kind, ...]] = ("whole", "metrics", "digests")


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """Requests that are worth something together only: those of a whole step, or one.

    Attributes:
        signal: where they go.
        kind: what they are.
        requests: each in pieces, as :func:`~kat_otel.instrumentation.sending.pack.request` says.
        items: spans or data points in all.
    """

    signal: Signal
    kind: Kind
    requests: Sequence[Sequence[Buffer]]
    items: int
    size: int = field(init=False)

    def __post_init__(self) -> None:
        size = sum(len(part) for request in self.requests for part in request)
        object.__setattr__(self, "size", size)


class Outbox:
    """Parcels in the order in which they came; any thread may put, one takes.

    Args:
        limit: bytes that may wait. A parcel above it is refused.
        counts: what is dropped is counted as ``items.dropped`` by kind.
    """

    def __init__(self, limit: int, counts: Counts) -> None:
        self._limit = limit
        self._counts = counts
        self._changed = threading.Condition()
        self._queues: dict[Kind, deque[tuple[int, Parcel]]] = {
            "whole": deque(),
            "metrics": deque(),
            "digests": deque(),
        }
        self._size = self._count = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size

    def put(self, parcel: Parcel) -> None:
        """Takes a parcel; if there is no room, the oldest of the least valuable kind goes."""
        with self._changed:
            if parcel.size > self._limit or self._closed:
                self._drop(parcel)
                return
            self._queues[parcel.kind].append((self._count, parcel))
            self._count += 1
            self._size += parcel.size
            while self._size > self._limit:
                kind: Kind = next(one for one in _OVERBOARD if self._queues[one])
                self._drop(self._queues[kind].popleft()[1], taken=True)
            self._changed.notify()

    def take(self, timeout: float) -> Parcel | None:
        """Returns the oldest parcel; None if none came in ``timeout`` seconds, or at the end."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not any(self._queues.values()):
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    return None
                self._changed.wait(left)
            queue = min((q for q in self._queues.values() if q), key=lambda q: q[0][0])
            parcel = queue.popleft()[1]
            self._size -= parcel.size
            return parcel

    def close(self) -> None:
        """Takes nothing any more; what waits may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _drop(self, parcel: Parcel, *, taken: bool = False) -> None:
        if taken:
            self._size -= parcel.size
        reason = "closed" if self._closed else "queue_full"
        self._counts.add(f"{parcel.kind}.dropped", parcel.items, reason)
