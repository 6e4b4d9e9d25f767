"""What leaves of a step: nothing, its digest, or all of it. Whole steps, never single kernels.

Ranks agree without talking: they know the same settings and orders, and a step's number alone
decides. How much may be recorded at all is the least that anybody allows: the settings, the
control channel, an operator's signal, the overhead budget.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from kat_otel.capture import Capture, Mode, Orders
from kat_otel.instrumentation.sending.budget import LEVELS
from kat_otel.instrumentation.settings import Settings

__all__ = ["Sampling"]

_MAX_CAPTURES: Final = 64
_MAX_RECORDED: Final = 1_000


@dataclass(slots=True)
class _Known:
    """A capture that was heard of; ``left``: recorded steps that are still to be sent."""

    capture: Capture
    left: set[int] = field(default_factory=set[int])


class Sampling:
    """Decides for one worker. Used by one thread.

    Args:
        settings: mode and sampling where no orders say otherwise.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._orders: Orders | None = None
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self.budget: Mode = "full"
        """The most that the overhead budget allows."""
        self.silenced = False
        """Whether an operator has switched capture off by signal."""

    @property
    def mode(self) -> Mode:
        """How much is recorded now."""
        if self.silenced:
            return "off"
        allowed: list[Mode] = [self._settings.mode, self.budget]
        if self._orders is not None:
            allowed.append(self._orders.mode)
        return LEVELS[max(map(LEVELS.index, allowed))]

    def obey(self, orders: Orders | None) -> None:
        """Takes orders; None if there are none, or none that still hold."""
        self._orders = orders
        for capture in orders.captures if orders else ():
            if capture.id not in self._known:
                first, last = capture.recorded
                steps = range(first, min(last, first + _MAX_RECORDED) + 1)
                self._known[capture.id] = _Known(capture, set(steps))
        while len(self._known) > _MAX_CAPTURES:
            self._known.popitem(last=False)

    def whole(self, step: int) -> bool:
        """Returns whether a step that has closed leaves whole, under its own trace."""
        if self.mode != "full":
            return False
        orders = self._orders
        every = self._settings.sample_every
        if orders is not None and orders.sample_every is not None:
            every = orders.sample_every
        if every and step % every == 0:
            return True
        captures = orders.captures if orders else ()
        return any(first <= step <= last for first, last in (c.next for c in captures))

    def recorded(self, first: int, last: int) -> Iterator[tuple[str, list[int], int]]:
        """Yields captures whose recorded steps can be sent now, or never any more.

        Args:
            first: the oldest step that is held.
            last: the newest step that has closed; those after it are sent when they have.

        Yields:
            The capture's id, its steps to send now, and how many are no longer held. Each step
            is yielded once.
        """
        if self.mode != "full":
            return
        for known in self._known.values():
            due = sorted(step for step in known.left if step <= last)
            if due:
                known.left.difference_update(due)
                held = [step for step in due if step >= first]
                yield known.capture.id, held, len(due) - len(held)
