"""Where a defect ends: one step or batch that a stage cannot stomach must not stop the others.

An exception that reached the judging thread would end the process, and the log would bring the
same spans back at the next start, for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from kat_otel.processor.rarely import Rarely
from kat_otel.telemetry import Books

__all__ = ["Defects"]

Made = TypeVar("Made")

logger = logging.getLogger(__name__)


class Defects:
    """Runs what may fail.

    Args:
        books: counts the failures.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self._rarely = Rarely()

    def guard(self, work: Callable[[], Made], event: str, what: str) -> Made | None:
        """Returns what ``work`` returns; None if it fails, which is counted and logged.

        Args:
            work: must leave nothing half done that its caller cannot do over or do without.
            event: what the failure is counted as.
            what: who it befell and what comes of it, for the log. The exception is logged with
                it, once in ten seconds: a defect may befall every step.
        """
        try:
            return work()
        except Exception:
            self._books.mark(event)
            if self._rarely.unsaid(event) is not None:
                logger.exception("%s: %s", event, what)
            return None
