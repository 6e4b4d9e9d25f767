"""No exception of ours ever reaches the inference server: one guard around every hook.

What fails is said once, with the place and the remedy; what fails again and again is taken off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

__all__ = ["FAILURES", "Guard"]

logger: Final = logging.getLogger(__name__)

FAILURES: Final = 3
"""Failures of one hook after which it is taken off."""


class Guard:
    """Runs our part of a hook and keeps its failures to itself.

    Attributes:
        where: what is hooked, for the message.
        failures: so far.
    """

    __slots__ = ("_give_up", "failures", "where")

    def __init__(self, where: str, give_up: Callable[[], None]) -> None:
        """Args: ``give_up`` takes the hook off; it is called once, after the last failure."""
        self.where = where
        self.failures = 0
        self._give_up = give_up

    @property
    def open(self) -> bool:
        """Whether the hook is still to be run."""
        return self.failures < FAILURES

    def close(self) -> None:
        """Nothing is run from now on, even where the wrapper cannot be taken off."""
        self.failures = FAILURES

    def run(self, ours: Callable[..., Any], *arguments: Any) -> Any:
        """Returns what ``ours`` returns, or None if it failed."""
        if self.failures >= FAILURES:
            return None
        try:
            return ours(*arguments)
        except Exception as error:  # noqa: BLE001 — the server must not pay for our mistakes
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if self.failures == 1:
            logger.warning(
                "%s: the hook failed, the server runs on: %r — please report this with the"
                " engine's version; KAT_MODE=off turns instrumentation off",
                self.where,
                error,
                exc_info=error,
            )
        if self.failures == FAILURES:
            logger.warning(
                "%s: the hook failed %d times and is taken off; steps of this process may be"
                " incomplete from now on",
                self.where,
                FAILURES,
            )
            try:
                self._give_up()
            except Exception as again:  # noqa: BLE001 — as above; `open` is False already
                logger.warning("%s: could not be taken off: %r", self.where, again)
