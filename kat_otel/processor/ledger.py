"""Which batches are still needed: a batch leaves the write-ahead log when nobody needs it.

A batch may bring spans of several steps, a step has spans of many batches, and a step leaves in
several requests. Each of them claims the batches it stands on; the last to let go settles them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

__all__ = ["Ledger"]


class Ledger:
    """Counts the claims on every batch; all threads of the processor write here.

    Args:
        settle: called with the receipts that nobody claims any more, outside of any lock. Those
            of one :meth:`release` come in one call, so that a log can forget them at once. None
            if no log holds the batches.
    """

    def __init__(self, settle: Callable[[list[int]], None] | None = None) -> None:
        self._settle = settle
        self._lock = threading.Lock()
        self._claims: dict[int, int] = {}

    def claim(self, receipts: Iterable[int]) -> None:
        """Adds one claim on each of the batches."""
        with self._lock:
            for receipt in receipts:
                self._claims[receipt] = self._claims.get(receipt, 0) + 1

    def release(self, receipts: Iterable[int]) -> None:
        """Takes one claim from each of the batches; what has none left is settled.

        Raises:
            KeyError: a batch without a claim: a defect, as it may have been forgotten too early.
        """
        settled: list[int] = []
        with self._lock:
            for receipt in receipts:
                left = self._claims[receipt] - 1
                if left:
                    self._claims[receipt] = left
                else:
                    del self._claims[receipt]
                    settled.append(receipt)
        if settled and self._settle is not None:
            self._settle(settled)

    def __len__(self) -> int:
        """Returns how many batches are claimed."""
        with self._lock:
            return len(self._claims)
