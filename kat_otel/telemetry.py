"""The processor's own books: what became of every span that it acknowledged."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["Balance", "Books", "Outcome", "configure_logging"]

Outcome = Literal["acknowledged", "refused", "invalid", "forwarded", "summarised", "dropped"]
"""What can become of a span:

``acknowledged``: taken from a sender, who may forget it. Everything below but ``refused`` and
``invalid`` is a fate of an acknowledged span. ``refused``: overload, the sender keeps it and
tries again. ``invalid``: told to the sender as rejected for good. ``forwarded``: acknowledged by
the endpoint. ``summarised``: left out on purpose, counted on the step's root. ``dropped``: lost
or repeated, with the reason.
"""

_FATES: Final = ("forwarded", "summarised", "dropped")


@dataclass(frozen=True, slots=True)
class Balance:
    """The books at one moment, in spans.

    Attributes:
        counts: by ``outcome`` or ``outcome:reason``.
        pending: acknowledged spans whose fate is still open.
    """

    counts: Mapping[str, int]
    pending: int

    def __str__(self) -> str:
        counts = ", ".join(f"{key} {number:,}" for key, number in sorted(self.counts.items()))
        return f"{counts or 'no spans'}, pending {self.pending:,}"


class Books:
    """Counts of spans by outcome and reason; every thread of the processor writes here."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[Outcome, str]] = Counter()
        self._marks: Counter[str] = Counter()

    def count(self, outcome: Outcome, spans: int, reason: str = "") -> None:
        """Adds ``spans`` to an outcome."""
        if spans:
            with self._lock:
                self._counts[outcome, reason] += spans

    def mark(self, name: str, number: int = 1) -> None:
        """Counts something that is no fate of a span: late spans, steps judged early, retries."""
        with self._lock:
            self._marks[name] += number

    def total(self, outcome: Outcome) -> int:
        """Returns the spans of an outcome, over all reasons."""
        with self._lock:
            return self._total(outcome)

    def marked(self, name: str) -> int:
        """Returns what :meth:`mark` has counted under ``name``."""
        with self._lock:
            return self._marks[name]

    def marks(self) -> dict[str, int]:
        """Returns everything that :meth:`mark` has counted."""
        with self._lock:
            return dict(self._marks)

    def balance(self) -> Balance:
        """Returns the books: acknowledged = forwarded + summarised + dropped + pending."""
        with self._lock:
            counts = {
                f"{outcome}:{reason}" if reason else outcome: number
                for (outcome, reason), number in self._counts.items()
            }
            pending = self._total("acknowledged") - sum(self._total(fate) for fate in _FATES)
            return Balance(counts, pending)

    def _total(self, outcome: Outcome) -> int:
        return sum(number for (found, _), number in self._counts.items() if found == outcome)


def configure_logging(level: str) -> None:
    """Sends the package's log lines to standard error; called by commands, never by imports."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("kat_otel")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
