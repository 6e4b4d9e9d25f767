"""What operators said of incidents: kept, counted, and handed out as labels."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kat_otel.operators import Feedback, Verdict, labels
from kat_otel.processor.kept_lines import KeptLines

__all__ = ["FeedbackBook"]

_MOST: Final = 2_000


def _ignore(_: str) -> None:
    pass


class FeedbackBook:
    """One verdict an incident, the last one; of 2,000 incidents, then the oldest go.

    Args:
        file: where they are kept; None forgets them with the process.
        mark: counts what happened, by a short name.
    """

    def __init__(self, file: Path | None = None, mark: Callable[[str], None] = _ignore) -> None:
        self._kept = KeptLines(file, Feedback, _MOST, mark)
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, feedback: Feedback) -> None:
        """Keeps a verdict in place of an earlier one on the same incident.

        Raises:
            OSError: the disk does not take it; the earlier one stays.
        """
        said = feedback.incident_id
        self._kept.change(
            lambda known: [*(one for one in known if one.incident_id != said), feedback]
        )
        with self._lock:
            self._counts[feedback.verdict, feedback.kind, feedback.component] += 1

    def told(self) -> tuple[Feedback, ...]:
        """Returns all verdicts, the oldest first."""
        return self._kept.read()

    def verdicts(self) -> dict[str, Verdict]:
        """Returns the verdicts by the incident's id."""
        return {one.incident_id: one.verdict for one in self._kept.read()}

    def lines(self) -> bytes:
        """Returns all of it as JSON lines."""
        return labels(self._kept.read())

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Returns how often each was said since start, by verdict, kind and component."""
        with self._lock:
            return dict(self._counts)
