"""What happens again and again is said rarely: one line a topic and interval.

A dead endpoint or a sender's broken batches must not fill the disk with their news.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable
from typing import Final

__all__ = ["Rarely"]

_EVERY_S: Final = 10.0
_MAX_TOPICS: Final = 256


class Rarely:
    """Decides what is said; all threads may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[Hashable, tuple[float, int]] = {}  # when, and how often it was due since

    def unsaid(self, topic: Hashable) -> int | None:
        """Returns how often the topic was kept quiet since it was last said, if it is due now.

        Returns:
            None if it was said within the last ten seconds: it is counted, and kept quiet.
        """
        now = time.monotonic()
        with self._lock:
            last, unsaid = self._said.get(topic, (-_EVERY_S, 0))
            if now - last < _EVERY_S:
                self._said[topic] = (last, unsaid + 1)
                return None
            if len(self._said) > _MAX_TOPICS:
                self._said.clear()
            self._said[topic] = (now, 0)
            return unsaid
