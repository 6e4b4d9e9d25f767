"""Spans that cannot be taken, while the rest of their request can."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Rejected"]


@dataclass(slots=True)
class Rejected:
    """Spans of a readable request that cannot be taken, for OTLP's partial success.

    Attributes:
        spans: how many.
        reason: what is wrong with the first, and where it stands.
    """

    spans: int = 0
    reason: str = ""

    def add(self, reason: str) -> None:
        """Counts one span; the first reason is kept."""
        self.spans += 1
        self.reason = self.reason or reason
