"""``GET /metrics``: the processor's own figures, read from its telemetry at each scrape.

Labels hold outcomes, reasons, kinds and components: closed lists of this package. Neither a
kernel's name nor an instance is ever one. ``docs/metrics.md`` describes every metric; a test
holds it to :data:`METRICS`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kat_otel.operators import Verdict
from kat_otel.processor.assembled import Ending
from kat_otel.processor.build import kat_version
from kat_otel.processor.exporter import Signal
from kat_otel.processor.live_view import LiveView
from kat_otel.processor.recent import Recent
from kat_otel.telemetry import (
    LATENCY_BOUNDS,
    Distribution,
    Explanation,
    Latency,
    Level,
    Outcome,
    Telemetry,
)

__all__ = ["METRICS", "MetricInfo", "metrics_app", "registry_of"]


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """One metric as Prometheus sees it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


_LEVELS: Final[dict[Level, tuple[str, str]]] = {
    "intake_bytes": ("intake_bytes", "Requests taken that the judging thread has not seen yet."),
    "assembling_steps": ("assembling_steps", "Steps that wait for more of their spans."),
    "assembling_spans": ("assembling_spans", "Spans of steps that wait for more."),
    "assembling_bytes": ("assembling_bytes", "Memory of steps that wait for more."),
    "instances": ("instances", "Instances with a history."),
    "log_bytes": ("log_bytes", "Size of the write-ahead log."),
    "log_records": ("log_records", "Requests in the write-ahead log whose spans are pending."),
    "export_queue_bytes": ("export_queue_bytes", "Requests that wait for the endpoint."),
    "export_last_success_age": (
        "export_last_success_age_seconds",
        "Time since the endpoint last acknowledged a request.",
    ),
    "questions": ("explanations_waiting", "Incidents that wait to be asked about."),
}

_PREFIX: Final = "kat_processor_"
_DECODED_SPANS: Final = "decoded spans"
_DECODED_BYTES: Final = "decoded bytes"
_ENDINGS: Final = {f"steps {ending}": ending for ending in get_args(Ending)}
_WATCHED_EVENTS: Final = ("requests refused", "steps failed")
"""Told from the start, as queries of ``docs/metrics.md`` watch their increase."""

METRICS: Final = (
    MetricInfo(
        "kat_processor_spans_total", "counter", ("outcome", "reason"), "What became of spans."
    ),
    MetricInfo(
        "kat_processor_pending_spans",
        "gauge",
        (),
        "Spans taken whose fate is open: acknowledged + recovered - forwarded - summarised - "
        "dropped.",
    ),
    MetricInfo("kat_processor_decoded_spans_total", "counter", (), "Spans read from requests."),
    MetricInfo(
        "kat_processor_decoded_bytes_total", "counter", (), "Bytes of requests that were read."
    ),
    MetricInfo(
        "kat_processor_steps_total", "counter", ("ending",), "Steps judged, by why they were."
    ),
    MetricInfo(
        "kat_processor_events_total",
        "counter",
        ("event",),
        "What is no fate of a span: requests refused or of metrics and logs, retries, late spans.",
    ),
    MetricInfo(
        "kat_processor_export_given_up_total",
        "counter",
        ("signal", "reason"),
        "Requests that the endpoint will never have.",
    ),
    MetricInfo(
        "kat_processor_export_rejected_total",
        "counter",
        ("signal",),
        "Spans, log records and data points that the endpoint left out of requests it took.",
    ),
    MetricInfo(
        "kat_processor_incidents_total", "counter", ("kind", "component"), "Incidents opened."
    ),
    MetricInfo(
        "kat_processor_pages_total",
        "counter",
        ("kind", "component"),
        "Incidents that became a page.",
    ),
    MetricInfo(
        "kat_processor_active_incidents", "gauge", ("page",), "Incidents that are not resolved."
    ),
    MetricInfo(
        "kat_processor_silenced_incidents",
        "gauge",
        (),
        "Incidents that are not resolved and no pages because an operator silenced them.",
    ),
    MetricInfo("kat_processor_silences", "gauge", (), "Silences in force."),
    MetricInfo(
        "kat_processor_feedback_total",
        "counter",
        ("verdict", "kind", "component"),
        "What operators said of incidents.",
    ),
    MetricInfo(
        "kat_processor_explanations_total",
        "counter",
        ("outcome",),
        "Incidents for which a model was to be asked, by what came of it.",
    ),
    MetricInfo(
        "kat_processor_explanation_rejections_total",
        "counter",
        ("reason",),
        "Why answers of a model were not taken, or did not come.",
    ),
    MetricInfo(
        "kat_processor_explanation_tokens_total",
        "counter",
        ("direction",),
        "Tokens of the requests to a model and of its answers.",
    ),
    MetricInfo(
        "kat_processor_work_duration_seconds",
        "histogram",
        ("work",),
        "Duration of the processor's own work.",
    ),
    MetricInfo(
        "kat_processor_verdict_latency_seconds",
        "histogram",
        (),
        "From the arrival of a step's last span to its verdict.",
    ),
    *(MetricInfo(_PREFIX + name, "gauge", (), text) for name, text in _LEVELS.values()),
    MetricInfo(
        "kat_processor_build_info", "gauge", ("version", "python"), "1; what runs, in its labels."
    ),
)
"""Every metric of our own, in the order of the output."""

_INFO: Final = {metric.name: metric for metric in METRICS}


def registry_of(
    telemetry: Telemetry, recent: Recent, view: LiveView | None = None
) -> CollectorRegistry:
    """Returns a registry with the processor's metrics and those of its operating system process."""
    registry = CollectorRegistry()
    registry.register(_Figures(telemetry, recent, view or LiveView(recent, list)))
    ProcessCollector(registry=registry)
    return registry


def metrics_app(registry: CollectorRegistry) -> Starlette:
    """Returns the web application that answers scrapes, in the form that the scraper asks for."""

    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})

    return Starlette(routes=[Route("/metrics", metrics), Route("/", metrics)])


class _Figures(Collector):
    def __init__(self, telemetry: Telemetry, recent: Recent, view: LiveView) -> None:
        self._telemetry = telemetry
        self._view = view
        self._recent = recent

    def collect(self) -> Iterator[Metric]:
        """Yields all metrics; a scrape never waits for the judging thread."""
        yield from self._spans()
        yield from self._marks()
        yield from self._undelivered()
        yield from self._incidents()
        yield from self._explanations()
        yield from self._durations()
        for level, value in self._telemetry.gauges.read().items():
            yield _gauge(_PREFIX + _LEVELS[level][0], {(): value})
        yield _gauge("kat_processor_build_info", {(kat_version(), platform.python_version()): 1.0})

    def _spans(self) -> Iterator[Metric]:
        books = self._telemetry.books
        # Every outcome is there from the start: a counter born at 5 hides its first increase.
        counts: dict[tuple[str, str], float] = {(name, ""): 0 for name in get_args(Outcome)}
        counts |= {(outcome, reason): n for (outcome, reason), n in books.counts().items()}
        yield _counter("kat_processor_spans_total", counts)
        yield _gauge("kat_processor_pending_spans", {(): books.balance().pending})

    def _marks(self) -> Iterator[Metric]:
        marks = self._telemetry.books.marks()
        yield _counter("kat_processor_decoded_spans_total", {(): marks.pop(_DECODED_SPANS, 0)})
        yield _counter("kat_processor_decoded_bytes_total", {(): marks.pop(_DECODED_BYTES, 0)})
        steps = {(ending,): marks.pop(name, 0) for name, ending in _ENDINGS.items()}
        yield _counter("kat_processor_steps_total", steps)
        events = dict.fromkeys(_WATCHED_EVENTS, 0) | marks
        yield _counter(
            "kat_processor_events_total", {(name,): number for name, number in events.items()}
        )

    def _undelivered(self) -> Iterator[Metric]:
        books = self._telemetry.books
        # Without a reason there is none given up: told from the start, as the outcomes are.
        given_up = {(signal, ""): 0 for signal in get_args(Signal)} | books.given_up()
        yield _counter("kat_processor_export_given_up_total", given_up)
        rejected = dict.fromkeys(get_args(Signal), 0) | books.rejected()
        yield _counter(
            "kat_processor_export_rejected_total", {(name,): n for name, n in rejected.items()}
        )

    def _incidents(self) -> Iterator[Metric]:
        yield _counter("kat_processor_incidents_total", self._recent.opened())
        yield _counter("kat_processor_pages_total", self._recent.pages())
        silences = self._view.silences
        known = self._recent.known.live()
        silenced = [silences.of(instance, incident) is not None for instance, incident in known]
        live = [i.page and not quiet for (_, i), quiet in zip(known, silenced, strict=True)]
        active = {(str(page).lower(),): live.count(page) for page in (False, True)}
        yield _gauge("kat_processor_active_incidents", active)
        yield _gauge("kat_processor_silenced_incidents", {(): silenced.count(True)})
        yield _gauge("kat_processor_silences", {(): len(silences.active())})
        # Both verdicts on what was found since start are told: the first one is an increase.
        opened, verdicts = self._recent.opened(), get_args(Verdict)
        told = {(verdict, *what): 0 for what in opened for verdict in verdicts}
        yield _counter("kat_processor_feedback_total", told | self._view.feedback.counts())

    def _explanations(self) -> Iterator[Metric]:
        found = self._telemetry.explanations
        if found is None:
            return
        outcomes = dict.fromkeys(get_args(Explanation), 0) | found.outcomes()
        yield _counter("kat_processor_explanations_total", {(k,): n for k, n in outcomes.items()})
        reasons = {(name,): n for name, n in found.reasons().items()}
        yield _counter("kat_processor_explanation_rejections_total", reasons)
        tokens = dict(zip((("sent",), ("received",)), found.tokens(), strict=True))
        yield _counter("kat_processor_explanation_tokens_total", tokens)

    def _durations(self) -> Iterator[Metric]:
        found = self._telemetry.latencies.read()
        verdict = found.pop("verdict", None)
        work: dict[tuple[str, ...], Distribution] = {
            (name,): found[name] for name in get_args(Latency) if name in found
        }
        yield _histogram("kat_processor_work_duration_seconds", work)
        waits: dict[tuple[str, ...], Distribution] = {} if verdict is None else {(): verdict}
        yield _histogram("kat_processor_verdict_latency_seconds", waits)


_Points = (
    Mapping[tuple[str, ...], float]
    | Mapping[tuple[str, str], float]
    | Mapping[tuple[str, str, str], float]
)


def _counter(name: str, points: _Points) -> Metric:
    return _filled(CounterMetricFamily, name, points)


def _gauge(name: str, points: _Points) -> Metric:
    return _filled(GaugeMetricFamily, name, points)


def _filled(
    family: Callable[..., CounterMetricFamily | GaugeMetricFamily], name: str, points: _Points
) -> Metric:
    info = _INFO[name]
    metric = family(name, info.help, labels=info.labels)
    for labels, value in sorted(points.items()):
        metric.add_metric(labels, value)
    return metric


def _histogram(name: str, points: Mapping[tuple[str, ...], Distribution]) -> Metric:
    info = _INFO[name]
    metric = HistogramMetricFamily(name, info.help, labels=info.labels)
    bounds = [*(f"{bound:g}" for bound in LATENCY_BOUNDS), "+Inf"]
    for labels, found in points.items():
        cumulative: Iterable[int] = accumulate(found.counts)
        buckets = [(b, float(count)) for b, count in zip(bounds, cumulative, strict=True)]
        metric.add_metric(labels, buckets, found.total)
    return metric
