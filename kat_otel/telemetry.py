"""What the processor knows of itself: the fate of every span, how long its work takes.

:class:`Telemetry` is the one object that the parts of the processor share. Every thread writes
to it; ports and self-traces read it.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "LATENCY_BOUNDS",
    "Balance",
    "Books",
    "Distribution",
    "Explanation",
    "Explanations",
    "Gauges",
    "Latencies",
    "Latency",
    "Level",
    "Outcome",
    "Stopwatch",
    "Telemetry",
    "Work",
    "configure_logging",
]

Outcome = Literal["acknowledged", "recovered", "invalid", "forwarded", "summarised", "dropped"]
"""What can become of a span:

``acknowledged``: taken from a sender, who may forget it. ``recovered``: acknowledged before a
restart and found in the log. ``invalid``: told to the sender as rejected for good. The others are
the fates of what was acknowledged or recovered. ``forwarded``: acknowledged by the endpoint.
``summarised``: left out on purpose, counted on the step's root. ``dropped``: lost or repeated, with
the reason. A request that is refused under load has no spans yet: it is counted as an event.
"""

_TAKEN: Final = ("acknowledged", "recovered")
_FATES: Final = ("forwarded", "summarised", "dropped")


@dataclass(frozen=True, slots=True)
class Balance:
    """The books at one moment, in spans.

    Attributes:
        counts: by ``outcome`` or ``outcome:reason``.
        pending: acknowledged and recovered spans whose fate is still open.
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
        self._given_up: Counter[tuple[str, str]] = Counter()
        self._rejected: Counter[str] = Counter()

    def count(self, outcome: Outcome, spans: int, reason: str = "") -> None:
        """Adds ``spans`` to an outcome."""
        if spans:
            with self._lock:
                self._counts[outcome, reason] += spans

    def mark(self, name: str, number: int = 1) -> None:
        """Counts something that is no fate of a span: late spans, steps judged early, retries."""
        with self._lock:
            self._marks[name] += number

    def give_up(self, signal: str, reason: str, requests: int) -> None:
        """Counts requests that the endpoint will never have, of any signal.

        Args:
            signal: what they carried.
            reason: from a closed list, as the spans' in :meth:`count`: never the peer's own words.
            requests: how many.
        """
        with self._lock:
            self._given_up[signal, reason] += requests

    def reject(self, signal: str, items: int) -> None:
        """Counts spans, log records or data points that the endpoint left out of what it took."""
        with self._lock:
            self._rejected[signal] += items

    def given_up(self) -> dict[tuple[str, str], int]:
        """Returns the requests of :meth:`give_up` by signal and reason."""
        with self._lock:
            return dict(self._given_up)

    def rejected(self) -> dict[str, int]:
        """Returns the items of :meth:`reject` by signal."""
        with self._lock:
            return dict(self._rejected)

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
        """Returns the books: acknowledged + recovered = the fates + pending."""
        with self._lock:
            counts = {
                f"{outcome}:{reason}" if reason else outcome: number
                for (outcome, reason), number in self._counts.items()
            }
            taken = sum(self._total(outcome) for outcome in _TAKEN)
            return Balance(counts, taken - sum(self._total(fate) for fate in _FATES))

    def counts(self) -> dict[tuple[Outcome, str], int]:
        """Returns the spans by outcome and reason, ``""`` where there is none."""
        with self._lock:
            return dict(self._counts)

    def _total(self, outcome: Outcome) -> int:
        return sum(number for (found, _), number in self._counts.items() if found == outcome)


Latency = Literal[
    "request",
    "decode",
    "append",
    "step",
    "assemble",
    "judge",
    "send",
    "export",
    "verdict",
    "explain",
]
"""What is timed, in seconds:

``request``: bytes of a request in, acknowledgement out; within it ``decode`` and ``append`` (to
the log, until durable). ``step``: a step's first span in, its result offered to the exporter;
within it ``assemble``, ``judge`` and ``send`` (mark, reduce, encode, offer). ``export``: one
attempt to send, with its answer. ``verdict``: a step's last span in, its verdict known. Of steps
judged together each is said to take as long as all. ``explain``: a model asked about an incident,
its answer taken or not; the incident has left before.
"""

LATENCY_BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Upper bounds of the histograms' buckets, seconds."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram since start; ``counts`` has a last bucket above all bounds.

    Attributes:
        counts: by bucket of :data:`LATENCY_BOUNDS`, not cumulative.
        total: sum of all values, seconds.
    """

    counts: tuple[int, ...]
    total: float


class Latencies:
    """Histograms of durations; ``observe`` costs less than a microsecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[Latency, list[int]] = {}
        self._totals: dict[Latency, float] = {}

    def observe(self, name: Latency, seconds: float) -> None:
        """Counts one duration."""
        bucket = bisect_left(LATENCY_BOUNDS, seconds)
        with self._lock:
            counts = self._counts.get(name)
            if counts is None:
                counts = self._counts[name] = [0] * (len(LATENCY_BOUNDS) + 1)
            counts[bucket] += 1
            self._totals[name] = self._totals.get(name, 0.0) + seconds

    def read(self) -> dict[Latency, Distribution]:
        """Returns what was observed so far."""
        with self._lock:
            return {
                name: Distribution(tuple(counts), self._totals[name])
                for name, counts in self._counts.items()
            }


Level = Literal[
    "intake_bytes",
    "assembling_steps",
    "assembling_spans",
    "assembling_bytes",
    "instances",
    "log_bytes",
    "log_records",
    "export_queue_bytes",
    "export_last_success_age",
    "questions",
]
"""What can be read at any moment; bytes, counts, and one age in seconds."""


class Gauges:
    """Levels, read when somebody looks. What is read must be cheap and take no long lock."""

    def __init__(self) -> None:
        self._readers: dict[Level, Callable[[], float]] = {}

    def set(self, name: Level, read: Callable[[], float]) -> None:
        """Says where a level is read; the last one said holds."""
        self._readers[name] = read

    def read(self) -> dict[Level, float]:
        """Returns the levels that somebody has set."""
        return {name: float(read()) for name, read in list(self._readers.items())}


Explanation = Literal[
    "model",
    "reused",
    "rejected",
    "failed",
    "nothing_to_ask",
    "over_budget",
    "queue_full",
    "waited_too_long",
    "unsent",
    "stopped",
]
"""What came of an incident about which a model was to be asked:

``model``: its diagnosis was sent. ``reused``: an earlier answer to the same facts was.
``rejected``: its answers could not be taken. ``failed``: it gave none. ``nothing_to_ask``: too
little is known. ``over_budget``, ``queue_full``, ``waited_too_long``: it was not asked. ``unsent``:
the exporter had no room. ``stopped``: the processor ended. In all but the first two the embedded
diagnosis stands.
"""


class Explanations:
    """Counts of what asking a model came to; the asking thread writes, ports and judging read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[Explanation] = Counter()
        self._reasons: Counter[str] = Counter()
        self._tokens = [0, 0]

    def count(self, outcome: Explanation, reasons: Iterable[str] = ()) -> None:
        """Counts an incident, and why answers of a model were not taken or did not come."""
        with self._lock:
            self._outcomes[outcome] += 1
            self._reasons.update(reasons)

    def spend(self, sent: int, received: int) -> None:
        """Counts tokens."""
        with self._lock:
            self._tokens[0] += sent
            self._tokens[1] += received

    def outcomes(self) -> dict[Explanation, int]:
        """Returns the incidents by what came of them."""
        with self._lock:
            return dict(self._outcomes)

    def reasons(self) -> dict[str, int]:
        """Returns why answers were not taken or did not come."""
        with self._lock:
            return dict(self._reasons)

    def tokens(self) -> tuple[int, int]:
        """Returns the tokens sent and received."""
        with self._lock:
            return self._tokens[0], self._tokens[1]


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of the processor's own work that is over, as a stopwatch timed it.

    Attributes:
        name: what it was.
        began, ended: seconds of the monotonic clock.
        laps: its parts in order, each with the moment it ended.
        attributes: what to say of it; numbers and closed words, never names from traces.
    """

    name: Latency
    began: float
    ended: float
    laps: tuple[tuple[Latency, float], ...]
    attributes: Mapping[str, str | int | float | bool]


class Stopwatch:
    """Times one piece of work; made by :meth:`Telemetry.watch`, used by one thread.

    ``watch = telemetry.watch("request")``, then ``watch.lap("decode")`` after each part and
    ``watch.stop(spans=n)`` at the end.
    """

    __slots__ = ("_began", "_clock", "_laps", "_last", "_name", "_telemetry")

    def __init__(
        self, telemetry: Telemetry, name: Latency, began: float, clock: Callable[[], float]
    ) -> None:
        self._telemetry = telemetry
        self._name: Latency = name
        self._began = self._last = began
        self._clock = clock
        self._laps: list[tuple[Latency, float]] = []

    def lap(self, name: Latency) -> float:
        """Notes that a part has just ended, and returns how long it took, in seconds."""
        now = self._clock()
        took, self._last = now - self._last, now
        self._laps.append((name, now))
        self._telemetry.latencies.observe(name, took)
        return took

    def stop(self, **attributes: str | float | bool) -> float:
        """Notes that all is done, and returns how long all of it took, in seconds."""
        now = self._clock()
        telemetry = self._telemetry
        telemetry.latencies.observe(self._name, now - self._began)
        if telemetry.on_work is not None:
            telemetry.on_work(Work(self._name, self._began, now, tuple(self._laps), attributes))
        return now - self._began


class Telemetry:
    """Everything the processor counts and times; one object, shared by all its parts.

    Attributes:
        books: spans by what became of them.
        latencies: how long things take.
        gauges: how full things are.
        explanations: what asking a model came to; None where none is asked.
        on_work: told of every piece of timed work; self-traces set it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.books = Books()
        self.latencies = Latencies()
        self.gauges = Gauges()
        self.explanations: Explanations | None = None
        self.on_work: Callable[[Work], None] | None = None
        self._clock = clock

    def watch(self, name: Latency, began: float | None = None) -> Stopwatch:
        """Starts a stopwatch, now or at a moment ``began`` of the monotonic clock."""
        return Stopwatch(self, name, self._clock() if began is None else began, self._clock)


def configure_logging(level: str) -> None:
    """Sends the package's log lines to standard error; called by commands, never by imports."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("kat_otel")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
