"""The bounded queue between the receiver's threads and the judge's.

What is accepted here has been logged before (see ``ingest.py``), and is acknowledged.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from kat_otel.processor.exporter import Signal
from kat_otel.spans import SpanTable

__all__ = ["Batch", "Intake"]


@dataclass(frozen=True, slots=True)
class Batch:
    """One request.

    Attributes:
        table: the decoded spans; None for logs and metrics.
        received: when it came, seconds of the processor's monotonic clock.
        size: wire bytes.
        receipt: its number in the log.
        signal: what it carries.
        data: the request's bytes, of logs and metrics only: they are passed on as they came.
    """

    table: SpanTable | None
    received: float
    size: int
    receipt: int = 0
    signal: Signal = "traces"
    data: bytes = b""


class Intake:
    """A queue bounded by bytes. ``reserve`` before decoding, then ``accept`` or ``release``."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._decoding = 0  # reserved, neither accepted nor released yet
        self._closed = False
        self._interrupted = False
        self._batches: deque[Batch] = deque()
        # Guards all of the above; waited on by the one consumer.
        self._changed = threading.Condition()

    def reserve(self, size: int) -> bool:
        """Takes room for a request; False if there is none now or the intake is closed.

        An empty intake takes a request of any size, or one above the limit could never pass.
        """
        with self._changed:
            if self._closed or (self._used and self._used + size > self._limit):
                return False
            self._used += size
            self._decoding += 1
            return True

    def release(self, size: int) -> None:
        """Gives back the room of a request that was not taken."""
        with self._changed:
            self._used -= size
            self._decoding -= 1
            self._changed.notify()

    def accept(self, batch: Batch) -> None:
        """Queues a batch in room reserved before. From here on it may be acknowledged."""
        with self._changed:
            self._batches.append(batch)
            self._decoding -= 1
            self._changed.notify()

    def take(self, timeout: float | None) -> Batch | None:
        """Returns the next batch; None after ``timeout`` seconds, an interruption, or at the end.

        The end is when the intake is closed, empty, and no request is being decoded any more:
        what will be acknowledged is always taken.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._batches or self._ended or self._interrupted, timeout
            )
            self._interrupted = False
            return self._batches.popleft() if self._batches else None

    def interrupt(self) -> None:
        """Lets a :meth:`take` that waits, or else the next one, return at once."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def done(self, batch: Batch) -> None:
        """Gives back the room of a batch that was worked off."""
        with self._changed:
            self._used -= batch.size

    def close(self) -> None:
        """Refuses what comes from now on; what is queued can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def _ended(self) -> bool:
        return self._closed and not self._decoding

    @property
    def ended(self) -> bool:
        """Whether nothing is queued and nothing can come any more."""
        with self._changed:
            return self._ended and not self._batches

    @property
    def used(self) -> int:
        """Bytes of requests that are being decoded or queued."""
        with self._changed:
            return self._used

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        with self._changed:
            return self._closed

    @property
    def empty(self) -> bool:
        """Whether nothing is queued."""
        with self._changed:
            return not self._batches
