"""Metrics over OTLP: step time, lateness at collectives, incidents, and the books.

Labels are instances, ranks, kinds and components: few values, all from closed lists or the
fleet's size. A kernel's name is never one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from kat_otel import per_string, semconv
from kat_otel.compiled import njit
from kat_otel.kernels import meanings
from kat_otel.otlp.signals import Gauge, Histogram, Labels, Sum, encode_metrics
from kat_otel.per_string import NEW
from kat_otel.spans import SpanTable
from kat_otel.telemetry import Telemetry
from kat_otel.ttad.loops import plain
from kat_otel.verdict import Incident

__all__ = ["Measurements", "arrival_lateness"]

_STEP_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SKEW_BOUNDS = (1e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0)

_MOST_SERIES: Final = 50_000
"""Of a metric: ranks and instances say who they are, and may say anything."""


def arrival_lateness(table: SpanTable) -> dict[int, int]:
    """Returns by rank how late it came to the step's collectives, the median over them in ns.

    Lateness is a rank's start minus the earliest rank's. Only collectives (spans of that kind)
    with barrier semantics that every rank of the table took part in equally often are compared.
    """
    known = sorted({resource.rank for resource in table.resources})
    place_of = {rank: place for place, rank in enumerate(known)}
    places = np.array([place_of[resource.rank] for resource in table.resources] or [0], np.int32)
    said, kind, columns = (
        meanings(()),
        plain(table.kind),
        (plain(table.name), plain(table.resource)),
    )
    place, known_texts = _barriers(kind, columns, said.values(table.strings), places)
    if not known_texts:
        said.of(table.strings, table.name)
        place, _ = _barriers(kind, columns, said.values(table.strings), places)
    late, count = _median_lateness(place, plain(table.start_ns), len(known))
    counts: list[int] = count.tolist()
    if np.count_nonzero(count) < 2 or len({*counts} - {0}) > 1:
        return {}
    return {rank: int(late[place_of[rank]]) for rank in known if counts[place_of[rank]]}


_KERNEL, _COLLECTIVE, _PAIRWISE = 6, 9, 2  # of SpanKind and Semantics, as numbers for the loop


@njit(
    "Tuple((int32[::1], boolean))(uint8[::1], UniTuple(int32[::1], 2), int64[::1], int32[::1])",
    uses=(per_string,),
)
def _barriers(kind: Any, columns: Any, meaning: Any, places: Any) -> Any:
    """Place of the rank of each collective with barrier semantics, -1 for all other spans.

    And whether all that must be known of names was.
    """
    name, resource = columns
    place = np.full(len(kind), -1, np.int32)
    for row in range(len(kind)):
        if kind[row] not in (_KERNEL, _COLLECTIVE):
            continue
        told = meaning[name[row]]
        if told == NEW:
            return place, False
        if told != _PAIRWISE and (told > 0 or kind[row] == _COLLECTIVE):
            place[row] = places[resource[row]]
    return place, True


@njit("Tuple((float64[::1], int64[::1]))(int32[::1], int64[::1], int64)")
def _median_lateness(place: Any, start_ns: Any, ranks: int) -> Any:
    """Median lateness of each rank at its collectives, ns, and how many they are."""
    late, count = np.zeros(ranks), np.zeros(ranks, np.int64)
    for one in place:
        if one >= 0:
            count[one] += 1
    most = count.max() if ranks else 0
    starts = np.zeros((ranks, most), np.int64)
    free = np.zeros(ranks, np.int64)
    for at in range(len(place)):
        if place[at] >= 0:
            starts[place[at], free[place[at]]] = start_ns[at]
            free[place[at]] += 1
    earliest = np.empty(most, np.int64)
    for rank in range(ranks):
        starts[rank, : count[rank]].sort()
    for at in range(most):
        earliest[at] = np.iinfo(np.int64).max
        for rank in range(ranks):
            if at < count[rank]:
                earliest[at] = min(earliest[at], starts[rank, at])
    for rank in range(ranks):
        if count[rank]:
            late[rank] = np.median(starts[rank, : count[rank]] - earliest[: count[rank]])
    return late, count


@dataclass(slots=True)
class _Distribution:
    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list[int])
    total: float = 0.0

    def add(self, value: float) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Measurements:
    """Accumulates since start; used by the judging thread alone."""

    def __init__(self, start_ns: int) -> None:
        self._start_ns = start_ns
        self._steps: dict[Labels, _Distribution] = {}
        # The series that grew last stands last.
        self._skew: OrderedDict[Labels, _Distribution] = OrderedDict()
        self._incidents: OrderedDict[Labels, int] = OrderedDict()
        self._forgotten = 0
        self._impact: dict[str, Mapping[Labels, float]] = {}

    def step(self, instance: str, duration_ns: int, lateness: Mapping[int, int]) -> None:
        """Counts one step; ``lateness`` as of :func:`arrival_lateness`, empty if not comparable."""
        labels: Labels = ((semconv.INSTANCE_ID, instance),)
        self._steps.setdefault(labels, _Distribution(_STEP_BOUNDS)).add(duration_ns / 1e9)
        for rank, late_ns in lateness.items():
            labels = ((semconv.INSTANCE_ID, instance), (semconv.RANK, rank))
            self._skew.setdefault(labels, _Distribution(_SKEW_BOUNDS)).add(late_ns / 1e9)
            self._bound(self._skew, labels)

    def incident(
        self, instance: str, incident: Incident, *, new: bool, silenced: bool = False
    ) -> None:
        """Counts an incident once, and keeps its impact until it is resolved."""
        points = list(_labels(instance, incident, silenced=silenced))
        if new:
            for labels in points:
                self._incidents[labels] = self._incidents.get(labels, 0) + 1
                self._bound(self._incidents, labels)
        self._impact.pop(incident.id, None)
        if incident.status != "resolved":
            self._impact[incident.id] = dict.fromkeys(points, incident.impact_ns / 1e9)
        while len(self._impact) > 10_000:  # incidents of instances that went silent
            self._impact.pop(next(iter(self._impact)))

    def _bound(self, series: OrderedDict[Labels, Any], grown: Labels) -> None:
        series.move_to_end(grown)
        if len(series) > _MOST_SERIES:
            series.popitem(last=False)
            self._forgotten += 1

    def forget(self, instance: str) -> None:
        """Drops the series of an instance that is gone."""
        own = (semconv.INSTANCE_ID, instance)
        for series in (self._steps, self._skew, self._incidents):
            for labels in [labels for labels in series if own in labels]:
                del series[labels]

    def encode(self, telemetry: Telemetry, now_ns: int) -> bytes:
        """Returns the bytes of an ExportMetricsServiceRequest."""
        books = telemetry.books
        if self._forgotten:
            books.mark("metric series forgotten", self._forgotten)
            self._forgotten = 0
        impact: dict[Labels, float] = {}
        for points in self._impact.values():
            for labels, seconds in points.items():
                impact[labels] = impact.get(labels, 0.0) + seconds
        outcomes = {_outcome(key): count for key, count in sorted(books.balance().counts.items())}
        return encode_metrics(
            {semconv.SERVICE_NAME: "kat"},
            [
                Histogram(
                    semconv.METRIC_STEP_DURATION,
                    "s",
                    "Duration of the steps that were judged.",
                    _STEP_BOUNDS,
                    _points(self._steps),
                ),
                Histogram(
                    semconv.METRIC_ARRIVAL_SKEW,
                    "s",
                    "How late a rank came to the collectives of a step, median over them.",
                    _SKEW_BOUNDS,
                    _points(self._skew),
                ),
                Sum(semconv.METRIC_INCIDENTS, "{incident}", "Incidents opened.", self._incidents),
                Gauge(
                    semconv.METRIC_IMPACT,
                    "s",
                    "Time per step that active incidents cost.",
                    impact,
                ),
                Sum(semconv.METRIC_SPANS, "{span}", "Spans by what became of them.", outcomes),
                *_explanations(telemetry),
            ],
            start_ns=self._start_ns,
            now_ns=now_ns,
        )


def _points(series: Mapping[Labels, _Distribution]) -> dict[Labels, tuple[list[int], float]]:
    return {labels: (found.counts, found.total) for labels, found in series.items()}


def _labels(instance: str, incident: Incident, *, silenced: bool) -> Iterator[Labels]:
    """Yields one set of labels per culprit rank, the first eight of them."""
    common: Labels = (
        (semconv.COMPONENT, incident.component),
        (semconv.INSTANCE_ID, instance),
        (semconv.KIND, incident.kind),
        (semconv.PAGE, incident.page),
    )
    for rank in incident.culprit.ranks[:8] or [-1]:
        yield (*common, (semconv.RANK, rank), (semconv.SILENCED, silenced))


def _explanations(telemetry: Telemetry) -> Iterator[Sum | Gauge]:
    """Yields what asking a model came to; nothing where none is asked."""
    found = telemetry.explanations
    if found is None:
        return
    by: dict[Labels, int] = {(("kat.outcome", k),): n for k, n in sorted(found.outcomes().items())}
    why: dict[Labels, int] = {((semconv.REASON, k),): n for k, n in sorted(found.reasons().items())}
    waiting = telemetry.gauges.read().get("questions", 0.0)
    yield Sum(
        semconv.METRIC_EXPLANATIONS,
        "{incident}",
        "Incidents for which a model was to be asked, by what came of it.",
        by,
    )
    yield Sum(
        semconv.METRIC_REJECTIONS,
        "{answer}",
        "Why answers of a model were not taken, or did not come.",
        why,
    )
    yield Gauge(
        semconv.METRIC_QUESTIONS,
        "{incident}",
        "Incidents that wait to be asked about.",
        {(): waiting},
    )


def _outcome(key: str) -> Labels:
    outcome, _, reason = key.partition(":")
    return (("kat.outcome", outcome), *((("kat.reason", reason),) if reason else ()))
