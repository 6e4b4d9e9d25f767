"""What the sender counts of itself: read by the hardware metrics, said in the log now and then."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

__all__ = ["Counts"]

_SAY_EVERY_S: Final = 60.0
_MAX_TOPICS: Final = 256


class Counts:
    """Sums by name and reason, ``spans.dropped:queue``; any thread may add and read.

    Levels (what is so at the moment) stand beside the sums.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: Counter[str] = Counter()
        self._levels: dict[str, float] = {}
        self._said: dict[str, float] = {}

    def add(self, name: str, number: int = 1, reason: str = "") -> None:
        """Adds to a sum."""
        if number:
            with self._lock:
                self._sums[f"{name}:{reason}" if reason else name] += number

    def set(self, name: str, value: float) -> None:
        """Sets a level."""
        with self._lock:
            self._levels[name] = value

    def read(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        """Returns the sums since the start of the process, and the levels now."""
        with self._lock:
            return dict(self._sums), dict(self._levels)

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._sums[name]

    def say(
        self,
        logger: logging.Logger,
        topic: str,
        text: str,
        *values: object,
        exc_info: bool = False,
    ) -> None:
        """Logs a warning, once a minute a topic: what happens again and again is counted."""
        now = time.monotonic()
        with self._lock:
            if now - self._said.get(topic, -_SAY_EVERY_S) < _SAY_EVERY_S:
                return
            if len(self._said) >= _MAX_TOPICS:
                self._said.clear()
            self._said[topic] = now
        logger.warning(text, *values, exc_info=exc_info)
