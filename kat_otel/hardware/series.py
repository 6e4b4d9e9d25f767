"""One series in memory: its latest points, and what they say of an incident.

Cumulative counters are kept as they came and differenced when asked for, so that points out of
order find their place and a fall is seen as a reset, as Prometheus does.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal, NamedTuple

from kat_otel.hardware.readings import SIGNALS, Phase, Signal

__all__ = ["Mode", "Series", "SeriesKey", "Summary", "Window"]

Mode = Literal["level", "cumulative", "delta", "codes", "events"]
"""``level`` values; ``cumulative`` counters as they came; ``delta`` growth since the point before;
``codes`` the last Xid again and again; ``events`` moments."""

_EVENTS_TOLD: Final = 16


class SeriesKey(NamedTuple):
    """What tells series apart.

    Attributes:
        signal, detail: what is measured.
        metric: the name it came under: two exporters on a host are two series.
        instance, rank: of the worker that said it; ``""`` and UNKNOWN if an agent did.
        host: as it was said.
        device: comparable ``hw.id``, ``""`` for what concerns the host.
        pci: comparable PCI address where only that is known.
    """

    signal: Signal
    detail: str
    metric: str
    instance: str
    rank: int
    host: str
    device: str
    pci: str


@dataclass(frozen=True, slots=True)
class Window:
    """The time of an incident, Unix ns, and how far clocks and causes may lie outside of it."""

    begin: int
    end: int
    slack: int


class Summary(NamedTuple):
    """What a series says of one phase; see :class:`kat_otel.hardware.readings.Reading`."""

    phase: Phase
    value: float
    begin_ns: int
    end_ns: int
    samples: int
    detail: str
    text: str


class Series:
    """Points of one series, by time; at most twice ``limit`` of them."""

    __slots__ = ("mode", "signal", "starts", "texts", "times", "values")

    def __init__(self, signal: Signal, mode: Mode) -> None:
        self.signal: Signal = signal
        self.mode: Mode = mode
        self.times = array("q")
        self.values = array("d")
        self.starts = array("q") if mode == "delta" else None
        self.texts: list[str] | None = [] if mode == "events" else None

    def __len__(self) -> int:
        return len(self.times)

    def add(self, time_ns: int, value: float, start_ns: int = 0, text: str = "") -> bool:
        """Takes a point in any order; one of the same time replaces the earlier.

        Returns:
            Whether the series has one more point now.
        """
        times = self.times
        at = len(times)
        if at and time_ns <= times[-1]:
            at = bisect_left(times, time_ns)
            same = times[at] == time_ns
            if same and (self.texts is None or self.texts[at] == text):
                self.values[at] = value
                if self.starts is not None:
                    self.starts[at] = start_ns
                return False
        times.insert(at, time_ns)
        self.values.insert(at, value)
        if self.starts is not None:
            self.starts.insert(at, start_ns)
        if self.texts is not None:
            self.texts.insert(at, text)
        return True

    def trim(self, limit: int, keep_ns: int) -> int:
        """Drops the oldest points, in batches, so that a point costs constant time.

        Returns:
            How many points were dropped.
        """
        count = len(self.times)
        old = bisect_left(self.times, self.times[-1] - keep_ns) if count else 0
        if count < 2 * limit and old < max(count // 2, 8):
            return 0
        drop = max(old, count - limit)
        for column in (self.times, self.values, self.starts, self.texts):
            if column is not None:
                del column[:drop]
        return drop

    def read(self, window: Window) -> list[Summary]:
        """Returns what the series says of the time before the incident and of the incident."""
        if not self.times or self.times[0] > window.end + window.slack:
            return []
        if self.mode == "events":
            return self._events(window)
        if self.mode == "codes":
            return self._codes(window)
        if self.mode == "level":
            return self._levels(window)
        return self._growth(window)

    def _levels(self, window: Window) -> list[Summary]:
        times, share = self.times, SIGNALS[self.signal].form == "share"
        early = bisect_left(times, window.begin - window.slack)
        onset = bisect_left(times, window.begin)
        last = bisect_right(times, window.end + window.slack)
        # What was measured since the onset counts; before anything was, what was near it does.
        first = onset if onset < last else early
        said: list[Summary] = []
        for phase, a, b in (("before", 0, early), ("during", first, last)):
            if a < b:
                some = self.values[a:b]
                value = sum(some) / len(some) if share else median(some)
                said.append(Summary(phase, value, times[a], times[b - 1], b - a, "", ""))  # type: ignore[arg-type]
        return said

    def _growth(self, window: Window) -> list[Summary]:
        """Sums intervals: one belongs to the incident if it ends after its begin less the slack."""
        before: list[tuple[int, int, float]] = []
        during: list[tuple[int, int, float]] = []
        since: list[tuple[int, int, float]] = []
        for start, end, growth in self._intervals():
            if end <= window.begin - window.slack:
                before.append((start, end, growth))
            elif start < window.end + window.slack:
                during.append((start, end, growth))
                if end > window.begin:
                    since.append((start, end, growth))
        if SIGNALS[self.signal].form == "share" and since:
            during = since
        said: list[Summary] = []
        share = SIGNALS[self.signal].form == "share"
        for phase, intervals in (("before", before), ("during", during)):
            if intervals:
                growth = sum(g for _, _, g in intervals)
                covered = sum(e - s for s, e, _ in intervals) / 1e9
                value = growth / covered if share else growth
                begin, end = intervals[0][0], intervals[-1][1]
                said.append(Summary(phase, value, begin, end, len(intervals), "", ""))  # type: ignore[arg-type]
        return said

    def _intervals(self) -> list[tuple[int, int, float]]:
        """(start, end, growth) of every interval, in order of time."""
        out: list[tuple[int, int, float]] = []
        for i, end in enumerate(self.times):
            before = self.times[i - 1] if i else 0
            if self.starts is not None:  # delta: the growth since its own start
                start = self.starts[i] or before
                if 0 < start < end:
                    out.append((start, end, max(self.values[i], 0.0)))
            elif i:
                rise = self.values[i] - self.values[i - 1]
                out.append((before, end, rise if rise >= 0 else max(self.values[i], 0.0)))
        return out

    def _codes(self, window: Window) -> list[Summary]:
        said: list[Summary] = []
        for i in range(1, len(self.times)):
            code, at = int(self.values[i]), self.times[i]
            changed = code and self.values[i] != self.values[i - 1]
            if changed and at <= window.end + window.slack:
                phase = "before" if at < window.begin - window.slack else "during"
                said.append(Summary(phase, 1.0, self.times[i - 1], at, 1, str(code), ""))
        return said[-_EVENTS_TOLD:]

    def _events(self, window: Window) -> list[Summary]:
        texts = self.texts or []
        last = bisect_right(self.times, window.end + window.slack)
        said: list[Summary] = []
        for i in range(max(0, last - _EVENTS_TOLD), last):
            at = self.times[i]
            phase = "before" if at < window.begin - window.slack else "during"
            said.append(Summary(phase, 1.0, at, at, 1, "", texts[i]))
        return said
