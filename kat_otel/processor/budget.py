"""What asking a model may cost in an hour, in tokens and in money."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from kat_otel.config import AnalyzerConfig

__all__ = ["Budget", "Spent"]

_HOUR_S: Final = 3600.0


class Spent(NamedTuple):
    """Tokens of one incident: held back before a model is asked, then what it really was."""

    sent: int
    received: int


class Budget:
    """Over the last 3,600 s, at any moment; used by one thread.

    What an incident may cost at most is held back before it is asked about, so that the hour's
    limit holds whatever answers come. Without a limit everything passes.

    Args:
        config: limits and prices.
        clock: monotonic seconds.
    """

    def __init__(self, config: AnalyzerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._spent: deque[tuple[float, Spent]] = deque()
        self._held: list[Spent] = []

    def hold(self, most: Spent) -> bool:
        """Holds back what an incident may cost; False, and nothing is, if the hour has no room."""
        while self._spent and self._clock() - self._spent[0][0] >= _HOUR_S:
            self._spent.popleft()
        all_of_it = [*(spent for _, spent in self._spent), *self._held, most]
        config = self._config
        if config.tokens_per_hour and sum(map(sum, all_of_it)) > config.tokens_per_hour:
            return False
        if config.money_per_hour and sum(map(self._money, all_of_it)) > config.money_per_hour:
            return False
        self._held.append(most)
        return True

    def settle(self, held: Spent, spent: Spent) -> None:
        """Takes what it really cost in place of what was held back."""
        self._held.remove(held)
        if any(spent):
            self._spent.append((self._clock(), spent))

    def _money(self, spent: Spent) -> float:
        config = self._config
        return (spent.sent * config.price_sent + spent.received * config.price_received) / 1e6
