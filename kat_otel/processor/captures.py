"""Which steps of which instance are to be sent whole: the control channel's memory."""

from __future__ import annotations

import math
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from kat_otel.capture import Capture, Poll
from kat_otel.config import DigestsConfig

__all__ = ["Captures", "FullError", "StrangerError"]

_MAX_INSTANCES: Final = 1_024
_MAX_RANKS: Final = 16_384
_MAX_OPEN: Final = 8
_MAX_REASONS: Final = 256
_FORGET_S: Final = 600.0
_JUDGED_S: Final = 30.0
"""How long after its last step an instance counts as judged here: then it is elsewhere, or idle."""
_EXPIRE_S: Final = 60.0
_SPARE_STEPS: Final = 2
_FIRST_RATE: Final = 50.0  # steps a second, before two polls of a rank tell


class FullError(Exception):
    """No room for another instance or rank; the poll is to come again later."""


class StrangerError(Exception):
    """A worker asks for another instance or rank than it did before."""


@dataclass(slots=True)
class _Rank:
    uid: bytes
    step: int
    recorded_from: int
    seen: float
    rate: float = _FIRST_RATE


@dataclass(slots=True)
class _Instance:
    ranks: dict[int, _Rank] = field(default_factory=dict[int, _Rank])
    seen: float = 0.0
    open: list[tuple[float, Capture]] = field(default_factory=list[tuple[float, Capture]])
    asked: deque[float] = field(default_factory=deque[float])
    reasons: OrderedDict[str, None] = field(default_factory=OrderedDict[str, None])


class Captures:
    """Requests for whole steps, by instance. Not locked: whoever holds it does that.

    Args:
        config: how many steps, and how often.
        poll_seconds: how often workers ask.
    """

    def __init__(self, config: DigestsConfig, poll_seconds: float) -> None:
        self.config = config
        self.poll_seconds = poll_seconds
        self._instances: OrderedDict[str, _Instance] = OrderedDict()
        self._worker: OrderedDict[bytes, tuple[str, int]] = OrderedDict()
        self._judged: OrderedDict[str, float] = OrderedDict()

    def judged(self, name: str, now: float) -> None:
        """Takes that a step of an instance was judged here."""
        self._judged[name] = now
        self._judged.move_to_end(name)
        if len(self._judged) > _MAX_INSTANCES:
            self._judged.popitem(last=False)

    def judges(self, name: str, now: float) -> bool:
        """Returns whether an instance is judged here, and not by another processor."""
        return now - self._judged.get(name, -math.inf) <= _JUDGED_S

    def poll(self, uid: bytes, poll: Poll, now: float) -> tuple[Capture, ...]:
        """Takes what a worker says of itself; returns what its instance is to send whole.

        Args:
            uid: the worker's process.
            poll: what it says.
            now: monotonic seconds.

        Raises:
            StrangerError: the process asked for another instance or rank before, or another
                process that is alive holds this rank.
            FullError: there are too many instances or ranks.
        """
        whom = poll.instance, poll.rank
        if self._worker.get(uid, whom) != whom:
            raise StrangerError("this process is known as a rank of another instance")
        instance = self._instance(poll.instance, now)
        rank = instance.ranks.get(poll.rank)
        if rank is not None and rank.uid != uid:
            if now - rank.seen <= 3 * self.poll_seconds:
                raise StrangerError("another process polls as this rank")
            self._worker.pop(rank.uid, None)  # it was restarted
            rank = None
        if rank is None:
            if len(instance.ranks) >= _MAX_RANKS:
                raise FullError(f"{_MAX_RANKS} ranks of instance {poll.instance} are known")
            rank = instance.ranks[poll.rank] = _Rank(uid, poll.step, poll.recorded_from, now)
        passed = now - rank.seen
        if passed > 0 and poll.step >= rank.step:
            rank.rate = max((poll.step - rank.step) / passed, 0.5 * rank.rate)
        rank.step, rank.recorded_from, rank.seen = poll.step, poll.recorded_from, now
        self._worker[uid] = whom
        self._worker.move_to_end(uid)
        while len(self._worker) > _MAX_INSTANCES * 64:
            self._worker.popitem(last=False)
        instance.seen = now
        self._instances.move_to_end(poll.instance)
        self._expire(instance, now)
        return tuple(capture for _, capture in instance.open)

    def request(self, name: str, step: int, reason: str, now: float) -> Capture | None:
        """Chooses the steps around a finding that all ranks of an instance send whole.

        Returns:
            The capture; None if nobody polls, this reason has been served, the hour's share is
            used up, or too many are under way.
        """
        instance = self._instances.get(name)
        if instance is None:
            return None
        self._expire(instance, now)
        ranks = [r for r in instance.ranks.values() if now - r.seen <= 10 * self.poll_seconds]
        while instance.asked and now - instance.asked[0] >= 3600:
            instance.asked.popleft()
        allowed = len(instance.asked) < self.config.captures_per_hour
        if not ranks or reason in instance.reasons or not allowed:
            return None
        if len(instance.open) >= _MAX_OPEN:
            return None
        count = self.config.capture_steps
        # Recorded: what every rank still holds when it hears of it, a poll from now.
        oldest = max(r.recorded_from + math.ceil(r.rate * self.poll_seconds) for r in ranks)
        first = max(step - count + 1, oldest if oldest <= step else step + 1, 0)
        ahead = max(
            r.step + math.ceil(2 * r.rate * (self.poll_seconds + now - r.seen)) for r in ranks
        )
        begin = max(ahead, step) + _SPARE_STEPS
        capture = Capture(
            uuid.uuid4().hex[:16], (first, step), (begin, begin + count - 1), reason[:128]
        )
        slowest = min(r.rate for r in ranks)
        lasts = _EXPIRE_S + (begin + count - min(r.step for r in ranks)) / max(slowest, 0.1)
        instance.open.append((now + min(lasts, 3600.0), capture))
        instance.asked.append(now)
        instance.reasons[reason] = None
        while len(instance.reasons) > _MAX_REASONS:
            instance.reasons.popitem(last=False)
        return capture

    def latest(self, name: str) -> int | None:
        """Returns the step that every rank of an instance has reached; None if none polls."""
        instance = self._instances.get(name)
        if instance is None or not instance.ranks:
            return None
        return min(rank.step for rank in instance.ranks.values())

    @property
    def instances(self) -> list[str]:
        """Those whose workers poll, the latest last."""
        return list(self._instances)

    def _instance(self, name: str, now: float) -> _Instance:
        instance = self._instances.get(name)
        if instance is None:
            if len(self._instances) >= _MAX_INSTANCES:
                self._make_room(self.judges(name, now), now)
            instance = self._instances[name] = _Instance()
        return instance

    def _make_room(self, judged: bool, now: float) -> None:
        # Workers that look for their processor leave their instance with those that they ask on
        # the way: one that is judged here takes the place of such a one.
        for name, known in self._instances.items():
            if now - known.seen >= _FORGET_S or (judged and not self.judges(name, now)):
                self._forget(name)
                return
            if not judged:
                break
        raise FullError(f"{_MAX_INSTANCES} instances are known")

    def _forget(self, name: str) -> None:
        for rank in self._instances.pop(name).ranks.values():
            self._worker.pop(rank.uid, None)

    @staticmethod
    def _expire(instance: _Instance, now: float) -> None:
        instance.open = [(until, capture) for until, capture in instance.open if now < until]
