"""The judges of the instances: made when first needed, with what was learnt before a restart.

What a judge has learnt is written when it matters (an incident opened or resolved) and else every
few seconds, so that an incident stays one incident over a restart or a move of its instance.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from kat_otel.spans import SpanTable
from kat_otel.telemetry import Books
from kat_otel.verdict import Report

__all__ = ["Judge", "Judges", "Memory", "Shelf"]

_AWAY_S: Final = 1.0

logger = logging.getLogger(__name__)


class Judge(Protocol):
    """Judges the steps of one instance, in their order; ``kat_otel.ttad.Detector`` is one."""

    def judge(self, table: SpanTable, /) -> Report:
        """Returns the report of one step; incidents keep their ids from step to step."""
        ...

    def judge_steps(self, table: SpanTable, bounds: Sequence[int], /) -> list[Report]:
        """Returns the reports of consecutive steps with digests alone, as if judged one by one.

        Args:
            table: their spans, step by step.
            bounds: the first row of each step, and behind the last the number of rows.
        """
        ...


AnyJudge = TypeVar("AnyJudge", bound=Judge)


class Shelf(Protocol):
    """Where what was learnt is kept, by instance; ``state.StateStore`` is one."""

    def load(self, instance: str, /, *, back: bool = False) -> bytes | None:
        """Returns what was saved last, None if nothing.

        Args:
            instance: its name.
            back: for old steps, which do not take it from whoever has it by now.
        """
        ...

    def save(self, instance: str, data: bytes, /) -> None:
        """Keeps ``data`` in place of what was kept."""
        ...

    def is_elsewhere(self, instance: str, /) -> bool:
        """Returns whether another processor has taken the instance over since it was loaded."""
        ...


@dataclass(frozen=True, slots=True)
class Memory(Generic[AnyJudge]):
    """How a judge is written down, and made again.

    Attributes:
        shelf: where it is kept.
        snapshot: returns what the judge has learnt.
        restore: makes a judge of it; raises ValueError if it is damaged or of another version.
        interval: seconds between two writings of an instance without news.
    """

    shelf: Shelf
    snapshot: Callable[[AnyJudge], bytes]
    restore: Callable[[bytes], AnyJudge]
    interval: float


@dataclass(slots=True)
class _Seat(Generic[AnyJudge]):
    judge: AnyJudge
    asked: float
    saved: float = -math.inf
    changed: bool = False
    back: bool = False  # made for old steps


class Judges(Generic[AnyJudge]):
    """One judge an instance; used by the judging thread only.

    Args:
        make: makes the judge of an instance that nothing is known of.
        books: counts what could not be read or written.
        memory: how they are kept; None forgets them with the process.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        make: Callable[[], AnyJudge],
        books: Books,
        memory: Memory[AnyJudge] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._books = books
        self._memory = memory
        self._clock = clock
        self._seats: dict[str, _Seat[AnyJudge]] = {}

    def of(self, instance: str, *, back: bool = False) -> AnyJudge:
        """Returns the judge of an instance.

        Args:
            instance: its name.
            back: for a step that a restarted processor found in its log. Another one may have
                the instance by now; only a step that is sent here says that it has not.
        """
        now = self._clock()
        seat = self._seats.get(instance)
        if seat is None or (not back and self._was_away(instance, seat, now)):
            judge = self._remembered(instance, back=back) or self._make()
            seat = self._seats[instance] = _Seat(judge, now, back=back)
        seat.asked = now
        return seat.judge

    def _was_away(self, instance: str, seat: _Seat[AnyJudge], now: float) -> bool:
        """Returns whether another processor has judged the instance, which is back now.

        Its last steps here may be judged after it has left: they follow each other closely and
        must not take it back. Whoever comes back was away for longer than that.
        """
        if self._memory is None or (now - seat.asked < _AWAY_S and not seat.back):
            return False
        seat.back = False
        return self._memory.shelf.is_elsewhere(instance)

    def __iter__(self) -> Iterator[AnyJudge]:
        """Iterates over all judges."""
        return (seat.judge for seat in self._seats.values())

    def dismiss(self, instance: str) -> None:
        """Forgets a judge whose state may be half changed; the next one starts anew."""
        self._seats.pop(instance, None)

    def judged(self, instance: str, now: float, *, news: bool) -> None:
        """Notes that a step was judged; writes the judge down if it is time to.

        Args:
            instance: whose step it was.
            now: monotonic seconds.
            news: an incident opened or was resolved, which must not be lost.
        """
        seat = self._seats.get(instance)
        if seat is None or self._memory is None:
            return
        seat.changed = True
        if news or now - seat.saved >= self._memory.interval:
            self._save(instance, seat, now)

    def retire(self, instance: str) -> None:
        """Writes a judge down and lets it go: its instance has not been seen for long."""
        seat = self._seats.pop(instance, None)
        if seat is not None:
            self._save(instance, seat, math.inf)

    def close(self) -> None:
        """Writes all judges down, at shutdown."""
        for instance, seat in self._seats.items():
            self._save(instance, seat, math.inf)

    def _remembered(self, instance: str, *, back: bool) -> AnyJudge | None:
        if self._memory is None:
            return None
        data = self._memory.shelf.load(instance, back=back)
        if data is None:
            return None
        try:
            judge = self._memory.restore(data)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it would stay so
            self._books.mark("states unreadable")
            logger.warning("instance %s: its history starts anew (%s)", instance or "?", error)
            return None
        self._books.mark("states restored")
        logger.info("instance %s: history and incidents go on from %d bytes", instance, len(data))
        return judge

    def _save(self, instance: str, seat: _Seat[AnyJudge], now: float) -> None:
        if self._memory is None or not seat.changed:
            return
        seat.saved, seat.changed = now, False
        try:
            self._memory.shelf.save(instance, self._memory.snapshot(seat.judge))
        except Exception as error:  # noqa: BLE001 - the disk's, or a state that cannot be told
            # Judging goes on: what is lost is the memory of a restart that may never come.
            self._books.mark("states not written")
            logger.warning("instance %s: history could not be written (%r)", instance[:80], error)
