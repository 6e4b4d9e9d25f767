"""The processor's own health: is anything refused, lost or late, and will it stay up?"""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.stat import Panel as Stat

from kat_otel.dashboards.board import Board, Placed
from kat_otel.dashboards.links import PROCESSOR_UID
from kat_otel.dashboards.names import own
from kat_otel.dashboards.panels import (
    ALARM,
    CALM,
    Column,
    bars,
    curve,
    figure,
    lines,
    now,
    rows,
    stacked,
)
from kat_otel.dashboards.promql import among, counted, equals, quantile, rate, selected
from kat_otel.dashboards.sources import choice, typed

__all__ = ["processor"]

_OF: Final = among("instance", "processor")
"""The label that Prometheus gives to what it scrapes: which processor says it."""

_SPANS: Final = own("spans_total")
_EVENTS: Final = selected(own("events_total"), _OF)
_RANGE: Final = "$__range"


def processor() -> Board:
    """Returns the dashboard of the processors themselves."""
    board = Board(
        PROCESSOR_UID,
        "KAT / Processor",
        "The health of kat process itself: is anything refused, lost or late?",
        "now-1h",
    )
    board.choose(
        choice(
            "processor",
            "Processor",
            "Address at which Prometheus scrapes it.",
            own("build_info"),
            "instance",
            several=True,
        ),
        typed("log_mib", "Log limit, MiB", "wal.max_size_mib of the settings.", "4096"),
    )
    _first_row(board)
    _books(board)
    _latency(board)
    _queues(board)
    _endpoint(board)
    _found(board)
    _machine(board)
    return board


def _spans(outcome: str, *more: str) -> str:
    return selected(_SPANS, _OF, equals("outcome", outcome), *more)


_LOST_REASON: Final = 'reason!~"|repeated"'
"""Dropped for a reason, and not because it had been there before."""


def _first_row(board: Board) -> None:
    refused = selected(own("events_total"), _OF, equals("event", "requests refused"))
    log = f"max({selected(own('log_bytes'), _OF)}) / ($log_mib * 1048576)"
    age = selected(own("export_last_success_age_seconds"), _OF)
    queue = selected(own("export_queue_bytes"), _OF)
    board.row(
        "",
        5,
        Placed(
            3,
            figure(
                "Processors",
                "How many kat process Prometheus reaches. Fewer than you started: look at their "
                "pods and /healthz.",
                now(f"count({selected(own('build_info'), _OF)}) or vector(0)"),
                "none",
                ((None, ALARM), (1, CALM)),
            ),
        ),
        Placed(
            3,
            figure(
                "Spans a second",
                "Acknowledged to senders.",
                now(f"sum({rate(_spans('acknowledged'))})"),
                "short",
                ((None, "text"),),
            ),
        ),
        _alarm(
            "Lost",
            "Spans dropped in this time range, those left out that had been there before. "
            "'Dropped, by reason' says why.",
            f"sum({counted(_spans('dropped', _LOST_REASON), _RANGE)}) or vector(0)",
            1,
        ),
        _alarm(
            "Refused",
            "Requests a second that senders were told to send later: the log or the queue is "
            "full, or judging is behind.",
            f"sum({rate(refused)})",
            0.01,
        ),
        Placed(
            3,
            figure(
                "Verdict, 99 of 100",
                "From a step's last span to its verdict. Above a second, judging is behind: give "
                "it a core more, or another processor.",
                now(quantile(0.99, own("verdict_latency_seconds"), _OF)),
                "s",
                ((None, CALM), (1, "orange"), (5, ALARM)),
            ),
        ),
        Placed(
            3,
            figure(
                "Log fill",
                "Of the fullest write-ahead log, of the limit that you set at the top. Full, it "
                "refuses requests: the endpoint does not take what leaves.",
                now(log),
                "percentunit",
                ((None, CALM), (0.5, "orange"), (0.9, ALARM)),
            ),
        ),
        Placed(
            3,
            figure(
                "Endpoint silent for",
                "How long something waits for an endpoint that acknowledges nothing.",
                now(f"max({age} and {queue} > 0) or vector(0)"),
                "s",
                ((None, CALM), (30, "orange"), (120, ALARM)),
            ),
        ),
        _alarm(
            "Steps failed",
            "Steps in this time range on which a stage failed: a defect of KAT. Their spans left "
            "unjudged; the traceback is in its log.",
            f"sum(increase({selected(own('events_total'), _OF, equals('event', 'steps failed'))}"
            f"[{_RANGE}]))",
            1,
        ),
    )


def _alarm(title: str, about: str, expression: str, limit: float) -> Placed:
    """A number that should be 0."""
    made: Stat = figure(
        title, about, now(expression), "short", ((None, CALM), (limit, ALARM)), filled=True
    )
    return Placed(3, made)


def _books(board: Board) -> None:
    taken = f"{_sum('acknowledged')} + {_sum('recovered')}"
    fates = " - ".join(_sum(outcome) for outcome in ("forwarded", "summarised", "dropped"))
    pending = selected(own("pending_spans"), _OF)
    board.row(
        "The books: acknowledged + recovered = forwarded + summarised + dropped + pending",
        8,
        Placed(
            8,
            stacked(
                "What becomes of spans",
                "Spans a second by outcome. Summarised spans are those of healthy steps: their "
                "step leaves as a summary.",
                [
                    curve(
                        f"sum by (outcome) ({rate(selected(_SPANS, _OF, _FATES))})",
                        "{{outcome}}",
                    )
                ],
                "short",
            ),
        ),
        Placed(
            8,
            lines(
                "Pending, and unexplained",
                "Spans whose fate is open, and those that the books cannot explain: that line "
                "stays at 0 but for a moment.",
                [
                    curve(f"sum({pending})", "pending"),
                    curve(f"{taken} - {fates} - sum({pending})", "unexplained"),
                ],
                "short",
            ),
        ),
        Placed(
            8,
            bars(
                "Dropped, by reason",
                "repeated: had been there before, no loss. Everything else is lost: see the "
                "reasons in the page on metrics.",
                [
                    curve(
                        f"sum by (reason) "
                        f"({counted(_spans('dropped', _REASON), '$__interval')}) > 0",
                        "{{reason}}",
                    )
                ],
                "short",
            ),
        ),
    )


_FATES: Final = 'outcome=~"forwarded|summarised|dropped|invalid"'
_REASON: Final = 'reason!=""'


def _sum(outcome: str) -> str:
    return f"sum({_spans(outcome)})"


def _latency(board: Board) -> None:
    verdict, work = own("verdict_latency_seconds"), own("work_duration_seconds")
    board.row(
        "Is it in time",
        8,
        Placed(
            8,
            lines(
                "Verdict latency",
                "From the arrival of a step's last span to its verdict.",
                [curve(quantile(q, verdict, _OF), f"p{100 * q:g}") for q in (0.5, 0.95, 0.99)],
                "s",
            ),
        ),
        Placed(
            8,
            lines(
                "Work, 99 of 100",
                "request: bytes in to acknowledgement out, with decode and append; step: first "
                "span in to result out, with assemble, judge and send; export: an attempt to send.",
                [curve(quantile(0.99, work, _OF, by="work"), "{{work}}")],
                "s",
            ),
        ),
        Placed(
            8,
            bars(
                "Steps judged, by why they were",
                "complete: all of it was there; waited: ranks were missing after decision_wait; "
                "limit: too much under assembly; shutdown: at the end.",
                [
                    curve(
                        f"sum by (ending) ({rate(selected(own('steps_total'), _OF))}) > 0",
                        "{{ending}}",
                    )
                ],
                "short",
            ),
        ),
    )


def _queues(board: Board) -> None:
    queues = {
        "intake_bytes": "taken, not judged yet",
        "assembling_bytes": "steps that wait for spans",
        "export_queue_bytes": "waits for the endpoint",
    }
    log = selected(own("log_bytes"), _OF)
    board.row(
        "Queues",
        8,
        Placed(
            8,
            stacked(
                "In memory",
                "What grows first says what is behind: judging, the workers, or the endpoint.",
                [
                    curve(f"sum({selected(own(name), _OF)})", words)
                    for name, words in queues.items()
                ],
                "bytes",
            ),
        ),
        Placed(
            8,
            lines(
                "Write-ahead log, with its next hour",
                "Requests on disk until what became of their spans has left, the limit, and where "
                "the growth of the last quarter of an hour leads.",
                [
                    curve(log, "{{instance}}"),
                    curve(f"clamp_min(predict_linear({log}[15m], 3600), 0)", "{{instance}} in 1 h"),
                    curve("vector($log_mib * 1048576)", "limit"),
                ],
                "bytes",
            ),
        ),
        Placed(
            8,
            lines(
                "Under assembly",
                "Steps that wait for more of their spans, and requests in the log whose spans are "
                "pending.",
                [
                    curve(f"sum({selected(own('assembling_steps'), _OF)})", "steps"),
                    curve(f"sum({selected(own('log_records'), _OF)})", "requests in the log"),
                ],
                "short",
            ),
        ),
    )


def _endpoint(board: Board) -> None:
    given_up = selected(own("export_given_up_total"), _OF)
    rejected = selected(own("export_rejected_total"), _OF)
    board.row(
        "The endpoint, and what is no fate of a span",
        8,
        Placed(
            8,
            lines(
                "Given up, and rejected",
                "Requests a second that the endpoint will never have, by signal and why, and what "
                "it left out of requests that it took. Both should be 0.",
                [
                    curve(
                        f"sum by (signal, reason) ({rate(given_up)})",
                        "{{signal}} given up {{reason}}",
                    ),
                    curve(f"sum by (signal) ({rate(rejected)})", "{{signal}} rejected"),
                ],
                "short",
            ),
        ),
        Placed(
            8,
            lines(
                "Last acknowledged",
                "How long ago the endpoint acknowledged something.",
                [curve(selected(own("export_last_success_age_seconds"), _OF), "{{instance}}")],
                "s",
            ),
        ),
        Placed(
            8,
            lines(
                "Events",
                "What is no fate of a span, a second: refused requests, retries, late spans, "
                "defects.",
                [curve(f"sum by (event) ({rate(_EVENTS)})", "{{event}}")],
                "short",
            ),
        ),
    )


def _found(board: Board) -> None:
    opened = counted(selected(own("incidents_total"), _OF), "$__interval")
    live, silenced = own("active_incidents"), selected(own("silenced_incidents"), _OF)
    feedback = own("feedback_total")
    board.row(
        "What it finds, and what operators said of it",
        8,
        Placed(
            8,
            bars(
                "Incidents opened",
                "By the component that explains them best.",
                [curve(f"sum by (component) ({opened}) > 0", "{{component}}")],
                "none",
            ),
        ),
        Placed(
            8,
            lines(
                "Not resolved",
                "Pages, findings below a page, and what operators silenced.",
                [
                    curve(f"sum({selected(live, _OF, equals('page', 'true'))})", "pages"),
                    curve(f"sum({selected(live, _OF, equals('page', 'false'))})", "findings"),
                    curve(f"sum({silenced})", "silenced"),
                    curve(f"sum({selected(own('silences'), _OF)})", "silences in force"),
                ],
                "none",
            ),
        ),
        Placed(
            8,
            rows(
                "Right or wrong, since the processors' start",
                "What operators said with kat feedback, by kind and component. Many wrong ones of "
                "a component: raise its thresholds, and tell us.",
                [
                    now(
                        "sum by (kind, component) "
                        f"({selected(feedback, _OF, equals('verdict', verdict))})"
                    )
                    for verdict in ("true", "false")
                ],
                [
                    Column("kind", "Kind"),
                    Column("component", "Component"),
                    Column("Value #A", "Right", width=80),
                    Column("Value #B", "Wrong", width=80, steps=((None, "text"), (1, "orange"))),
                ],
            ).no_value("Nothing was found since the start."),
        ),
    )


def _machine(board: Board) -> None:
    running = selected(own("build_info"), _OF)
    joined = f"* on (job, instance) group_left () {running}"
    joined_with_version = joined.replace("group_left ()", "group_left (version, python)")
    board.row(
        "The process",
        8,
        Placed(
            8,
            lines(
                "Memory",
                "Resident, by processor. Its bound is the sum of the limits in the settings.",
                [curve(f"process_resident_memory_bytes {joined}", "{{instance}}")],
                "bytes",
            ),
        ),
        Placed(
            8,
            lines(
                "CPU",
                "Cores used, by processor. Judging takes one core: beyond that, add a processor.",
                [
                    curve(
                        f"rate(process_cpu_seconds_total[$__rate_interval]) {joined}",
                        "{{instance}}",
                    )
                ],
                "none",
            ),
        ),
        Placed(
            8,
            rows(
                "What runs",
                "Version and Python of each processor, and how long ago it was started.",
                [now(f"(time() - process_start_time_seconds) {joined_with_version}")],
                [
                    Column("instance", "Processor"),
                    Column("version", "Version", width=100),
                    Column("python", "Python", width=100),
                    Column("Value", "Up for", unit="s", width=120),
                ],
            ),
        ),
    )
