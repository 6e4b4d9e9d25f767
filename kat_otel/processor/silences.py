"""Incidents that shall not page for a while: followed and exported as ever, but no page."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from kat_otel.operators import Silence
from kat_otel.processor.kept_lines import KeptLines
from kat_otel.verdict import Incident, Report

__all__ = ["SilenceError", "Silenced", "Silences"]

_MOST: Final = 1_000

Silenced = Mapping[str, Silence]
"""What silences incidents, by their id."""

logger = logging.getLogger(__name__)


class SilenceError(Exception):
    """A silence cannot be made or ended; the message says why."""


def _ignore(_: str) -> None:
    pass


class Silences:
    """Those in force; all threads of the processor may ask.

    Args:
        file: where they are kept; None forgets them with the process.
        mark: counts what happened, by a short name.
        clock: Unix ns.
    """

    def __init__(
        self,
        file: Path | None = None,
        mark: Callable[[str], None] = _ignore,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._kept = KeptLines(file, Silence, _MOST, mark)
        self._clock = clock

    def active(self) -> list[Silence]:
        """Returns those that have not ended, the one that ends first at the beginning."""
        now = self._clock()
        found = [one for one in self._kept.read() if one.end_unix_nano > now]
        return sorted(found, key=lambda one: one.end_unix_nano)

    def of(self, instance: str, incident: Incident) -> Silence | None:
        """Returns what silences an incident now, the one that ends last; None if nothing does."""
        known = self._kept.read()
        if not known:
            return None
        now = self._clock()
        found = [s for s in known if s.end_unix_nano > now and s.matches(instance, incident)]
        return max(found, key=lambda one: one.end_unix_nano, default=None)

    def hush(self, instance: str, report: Report) -> Silenced:
        """Takes the page from the silenced incidents of a report, and returns what silences them.

        The judge's own incidents stay as they are: when the silence ends, they page.
        """
        silenced: dict[str, Silence] = {}
        for at, incident in enumerate(report.incidents):
            silence = self.of(instance, incident)
            if silence is None:
                continue
            silenced[incident.id] = silence
            if incident.page:
                quiet = msgspec.structs.replace(incident, page=False)
                report.incidents = [*report.incidents[:at], quiet, *report.incidents[at + 1 :]]
        return silenced

    def add(self, silence: Silence, seconds: float) -> Silence:
        """Puts a silence in force.

        Args:
            silence: what it says; its id and times are given to it here.
            seconds: how long it lasts.

        Raises:
            SilenceError: there are too many.
            OSError: it cannot be kept.
        """
        now = self._clock()
        made = msgspec.structs.replace(
            silence,
            id=secrets.token_hex(4),
            begin_unix_nano=now,
            end_unix_nano=now + round(seconds * 1e9),
        )

        def edit(known: tuple[Silence, ...]) -> list[Silence]:
            kept = [one for one in known if one.end_unix_nano > now]
            if len(kept) >= _MOST:
                raise SilenceError(f"{_MOST:,} silences are in force: end some of them first")
            return [*kept, made]

        self._kept.change(edit)
        logger.info("%s silences %s for %.0f s (%s)", made.by, made.target, seconds, made.id)
        return made

    def end(self, silence_id: str, by: str) -> Silence:
        """Ends a silence before its time.

        Raises:
            SilenceError: none of that id is in force.
            OSError: the disk does not take it.
        """
        now = self._clock()
        ended: list[Silence] = []

        def edit(known: tuple[Silence, ...]) -> list[Silence]:
            kept = [one for one in known if one.end_unix_nano > now]
            ended[:] = [one for one in kept if one.id == silence_id]
            if not ended:
                active = ", ".join(one.id for one in kept[:16]) or "none"
                raise SilenceError(f"no silence {silence_id[:64]} is in force; in force: {active}")
            return [one for one in kept if one.id != silence_id]

        self._kept.change(edit)
        logger.info("%s ends the silence of %s (%s)", by, ended[0].target, silence_id)
        return ended[0]
