"""What capture may cost: above its share of the steps' time less is recorded, by itself.

Counted are the CPU time of capture inside the worker process, what CUPTI says that tracing cost
(both are on the server's own threads) and the sender's CPU time. The sender has a core of its
own, unless the machine has none to spare: its time counts by its share of the cores that the
process may use, and in full where it is a thread of the server. The sum is held against the time
of the steps in which it arose.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from kat_otel.capture import Mode

__all__ = ["LEVELS", "Budget"]

logger: Final = logging.getLogger(__name__)

LEVELS: Final[tuple[Mode, ...]] = ("full", "digest", "off")
"""From everything to nothing."""

_WINDOW_NS: Final = 1_000_000_000
"""Of steps' time, before their cost is judged."""
_SMOOTHING: Final = 0.4
_WINDOWS_TO_LOWER: Final = 3
_FIRST_RETRY_S: Final = 60.0
_MOST_RETRY_S: Final = 3_600.0
_PROVEN_S: Final = 600.0


class Budget:
    """Follows the cost and sets the level. Used by one thread.

    Args:
        share: of the steps' time that may be spent; 0 sets no limit.
        clock: monotonic seconds.
    """

    def __init__(self, share: float, clock: Callable[[], float]) -> None:
        self._share = share
        self._clock = clock
        self._level = 0
        self._step_ns = self._cost_ns = 0.0
        self._above = 0
        self._retry = _FIRST_RETRY_S
        self._changed = clock()
        self.spent = 0.0
        """Share of the steps' time that was spent, smoothed."""

    @property
    def level(self) -> Mode:
        """The most that may be recorded now."""
        return LEVELS[self._level]

    def observe(self, step_ns: float, cost_ns: float) -> None:
        """Takes the time of steps that closed, and what was spent meanwhile.

        Args:
            step_ns: together; 0 if none closed.
            cost_ns: since the last call.
        """
        self._step_ns += step_ns
        self._cost_ns += cost_ns
        if self._step_ns >= _WINDOW_NS:
            now = self._cost_ns / self._step_ns
            self._step_ns = self._cost_ns = 0.0
            self.spent += (now - self.spent) * (_SMOOTHING if self.spent else 1.0)
            above = self._share and min(now, self.spent) > self._share  # on average, and still
            self._above = self._above + 1 if above else 0
            if self._above >= _WINDOWS_TO_LOWER and self._level < len(LEVELS) - 1:
                self._lower()
        self._perhaps_raise()

    def _lower(self) -> None:
        self._level += 1
        logger.warning(
            "capture took %.2f %% of the steps' time, %.2f %% are allowed (KAT_OVERHEAD_BUDGET): "
            "mode %s for %.0f s",
            100 * self.spent,
            100 * self._share,
            self.level,
            self._retry,
        )
        self._start_anew()

    def _perhaps_raise(self) -> None:
        since = self._clock() - self._changed
        if self._level and since >= self._retry:
            self._level -= 1
            self._retry = min(2 * self._retry, _MOST_RETRY_S)
            logger.info("capture tries mode %s again", self.level)
            self._start_anew()
        elif not self._level and since >= _PROVEN_S:
            self._retry = _FIRST_RETRY_S

    def _start_anew(self) -> None:
        self._changed = self._clock()
        self._above = 0
        self.spent = self._step_ns = self._cost_ns = 0.0
