"""Unit tests of the alerts on the processor's own health.

A minute between two values, unless ``every`` says otherwise.
"""

from __future__ import annotations

from kat_otel.rules.processor import DEFECTS, NOT_JUDGED
from tests.rules.promtool import Case

_AT = 'job="kat", instance="kat-0:8888"'
_LABELS = {"job": "kat", "instance": "kat-0:8888"}
_PROCESS = "kat process at kat-0:8888"


def own(name: str, **labels: str) -> str:
    """A series of the processor's own page, as Prometheus has it."""
    more = "".join(f', {label}="{value}"' for label, value in labels.items())
    return f"kat_processor_{name}{{{_AT}{more}}}"


_UP = f"up{{{_AT}}}"
_INFO = own("build_info", version="1", python="3.11")
_STARTED = f"process_start_time_seconds{{{_AT}}}"
_REFUSED = own("events_total", event="requests refused")
_INVALID = own("spans_total", outcome="invalid", reason="")
_LOG, _LOG_LIMIT = own("log_bytes"), own("log_limit_bytes")
_SPANS, _SPANS_LIMIT = own("assembling_spans"), own("assembling_limit_spans")
_EARLY = own("steps_total", ending="limit")
_WAITED, _COMPLETE = own("steps_total", ending="waited"), own("steps_total", ending="complete")
_AGE, _QUEUE = own("export_last_success_age_seconds"), own("export_queue_bytes")
_GIVEN_UP = own("export_given_up_total", signal="logs", reason="export UNIMPLEMENTED")
_DROPPED = own("spans_total", outcome="dropped", reason="rejected by endpoint")
_REPEATED = own("spans_total", outcome="dropped", reason="repeated")
_FAILED, _UNTOLD = (own("events_total", event=said) for said in (NOT_JUDGED[0], DEFECTS[0]))
_SILENCED = own("silenced_incidents")
_FLEET = 'kat_step_duration_seconds_count{kat_instance_id="llama"}'


def _verdicts(bound: str) -> str:
    return own("verdict_latency_seconds_bucket", le=bound)


def _said(verdict: str) -> str:
    return own("feedback_total", verdict=verdict, kind="stall", component="nic")


PROCESSOR_CASES = [
    # --- is it there -------------------------------------------------------------------------
    Case(
        "KatProcessorAbsent",
        "page",
        fires={_INFO: "1x3 stale"},
        quiet=[{_INFO: "1x20"}, {_INFO: "1x3 _x4 1x8"}],  # a restart is no absence
        at="15m",
        summary="No kat process is scraped: nobody watches the fleet",
    ),
    Case(
        "KatProcessorDown",
        "ticket",
        fires={_UP: "1x3 0x12", _INFO: "1x3 stale"},
        quiet=[
            {_UP: "1x15", _INFO: "1x15"},
            {_INFO: ""},  # somebody else's target
            {_UP: "1x3 stale"},  # taken out of service
        ],
        at="12m",
        labels=_LABELS,
        summary=f"{_PROCESS} does not answer scrapes",
    ),
    Case(
        "KatProcessorRestarts",
        "ticket",
        fires={_STARTED: "100 200 200 300 300 400 400 400 400 400 400", _INFO: "1x10"},
        quiet=[{_STARTED: "100 100 200 200 300 300x5"}, {_INFO: ""}],
        at="10m",
        labels=_LABELS,
        summary=f"{_PROCESS} has started 3 times in half an hour",
    ),
    Case(
        "KatFleetMetricsAbsent",
        "page",
        fires={_COMPLETE: "0+60x20"},
        quiet=[{_FLEET: "0+60x20"}, {_COMPLETE: "7x20"}],  # an idle fleet has no steps
        at="15m",
        summary="kat process judges steps, but Prometheus has no metric of the fleet",
    ),
    # --- does it take what comes -------------------------------------------------------------
    Case(
        "KatRequestsRefused",
        "ticket",
        fires={_REFUSED: "0+30x15"},
        quiet=[{_REFUSED: "0x15"}, {_REFUSED: "0 30x15"}],  # it refused once
        at="10m",
        labels={**_LABELS, "event": "requests refused"},
        summary=f"{_PROCESS} refuses 500m requests a second",
    ),
    Case(
        "KatSpansInvalid",
        "ticket",
        fires={_INVALID: "0x5 40x15"},
        quiet=[{_INVALID: "40x20"}],
        at="18m",
        labels={**_LABELS, "outcome": "invalid"},
        summary=f"{_PROCESS} rejected 40 spans in 15 minutes",
    ),
    Case(
        "KatLogNearlyFull",
        "page",
        fires={_LOG: "850x15", _LOG_LIMIT: "1000x15"},
        quiet=[{_LOG: "750x15"}, {_LOG_LIMIT: "2000x15"}, {_LOG: "850x5 300x10"}],
        at="12m",
        labels=_LABELS,
        summary="The log of kat process at kat-0:8888 is 85% full",
    ),
    Case(
        "KatLogFillsUp",
        "ticket",
        fires={_LOG: "250+3x70", _LOG_LIMIT: "1000x70"},
        quiet=[
            {_LOG: "250+1x70"},  # full in eleven hours
            {_LOG: "10+3x40 130x30"},  # a peak that has passed
            {_LOG: "450x70"},
        ],
        at="65m",
        labels=_LABELS,
        summary="The log of kat process at kat-0:8888 will be full within four hours",
    ),
    # --- does it judge -----------------------------------------------------------------------
    Case(
        "KatPendingNearLimit",
        "ticket",
        fires={_SPANS: "900x15", _SPANS_LIMIT: "1000x15"},
        quiet=[{_SPANS: "700x15"}, {_SPANS: "900x3 100x12"}],
        at="12m",
        labels=_LABELS,
        summary=f"{_PROCESS} has 90% of what it may hold under assembly",
    ),
    Case(
        "KatPendingNearLimit",
        "ticket",
        fires={
            own("assembling_bytes"): "900x15",
            own("assembling_limit_bytes"): "1000x15",
            _SPANS: "1x15",
            _SPANS_LIMIT: "1000x15",
        },
        quiet=[{own("assembling_bytes"): "1x15"}],
        at="12m",
        labels=_LABELS,
        summary=f"{_PROCESS} has 90% of what it may hold under assembly",
    ),
    Case(
        "KatStepsJudgedEarly",
        "ticket",
        fires={_EARLY: "0x3 2x30"},
        quiet=[{_EARLY: "0x33"}],
        at="15m",
        labels={**_LABELS, "ending": "limit"},
        summary=f"{_PROCESS} judged 2 steps before all their spans were there",
    ),
    Case(
        "KatRanksMissing",
        "ticket",
        fires={_WAITED: "0+10x40", _COMPLETE: "0+90x40"},
        quiet=[{_WAITED: "0+3x40"}],
        at="35m",
        labels=_LABELS,
        summary="10% of the steps at kat-0:8888 are judged without all their ranks",
    ),
    Case(
        "KatVerdictsLate",
        "ticket",
        fires={
            _verdicts("2.5"): "0+80x20",
            _verdicts("5"): "0+100x20",
            _verdicts("+Inf"): "0+100x20",
        },
        quiet=[{_verdicts("2.5"): "0+95x20"}],
        at="18m",
        labels=_LABELS,
        summary="Verdicts at kat-0:8888 take 3.75s (9 of 10 are faster)",
    ),
    Case(
        "KatNotJudged",
        "ticket",
        fires={_FAILED: "0x3 4x10"},
        quiet=[{_FAILED: "0x13"}, {_FAILED: "", _UNTOLD: "0x3 4x10"}],
        at="10m",
        labels={**_LABELS, "event": "steps failed"},
        summary=f"{_PROCESS} could not judge: steps failed, 4 in an hour",
    ),
    Case(
        "KatInstancesAtLimit",
        "ticket",
        fires={own("instances"): "64x70", own("instances_limit"): "64x70"},
        quiet=[{own("instances"): "63x70"}, {own("instances"): "64x30 60x40"}],
        at="65m",
        labels=_LABELS,
        summary=f"{_PROCESS} has 64 instances, which is its limit",
    ),
    # --- does it get out ---------------------------------------------------------------------
    Case(
        "KatExportFailing",
        "page",
        fires={_AGE: "0+60x15", _QUEUE: "4096x15"},
        quiet=[{_QUEUE: "0x15"}, {_AGE: "20x15"}],  # nothing to send; it is taken
        at="10m",
        labels=_LABELS,
        summary="The endpoint of kat process at kat-0:8888 has taken nothing for 10m 0s",
    ),
    Case(
        "KatExportGivenUp",
        "ticket",
        fires={_GIVEN_UP: "_x15 3x10"},  # a series that begins with its first loss
        quiet=[{_GIVEN_UP: "3x25"}],
        at="20m",
        labels={**_LABELS, "signal": "logs", "reason": "export UNIMPLEMENTED"},
        summary=f"{_PROCESS} gave up 3 requests of logs: export UNIMPLEMENTED",
    ),
    Case(
        "KatExportRejected",
        "ticket",
        fires={own("export_rejected_total", signal="traces"): "0+1x20"},
        quiet=[{own("export_rejected_total", signal="traces"): "9x20"}],
        at="16m",
        labels={**_LABELS, "signal": "traces"},
        summary="The endpoint of kat process at kat-0:8888 left out 15 items of traces",
    ),
    Case(
        "KatSpansDropped",
        "ticket",
        fires={_DROPPED: "_x5 40x5", _REPEATED: "0+9x10"},
        quiet=[{_DROPPED: ""}],  # what had been there before is no loss
        at="10m",
        labels={**_LABELS, "reason": "rejected by endpoint"},
        summary=f"{_PROCESS} dropped 40 spans: rejected by endpoint",
    ),
    Case(
        "KatNotTold",
        "ticket",
        fires={_UNTOLD: "_x3 4x10"},
        quiet=[{_UNTOLD: "", _FAILED: "_x3 4x10"}],
        at="10m",
        labels={**_LABELS, "event": "verdicts untold"},
        summary=f"{_PROCESS} could not tell: verdicts untold, 4 in an hour",
    ),
    # --- what operators say ------------------------------------------------------------------
    Case(
        "KatFindingsWrong",
        "ticket",
        fires={_said("false"): "_x3 3x9", _said("true"): "_x3 1x9"},
        quiet=[{_said("true"): "_x3 4x9"}, {_said("false"): "_x3 2x9"}],
        at="10h",
        every="1h",
        labels={"component": "nic"},
        summary="75% of what operators judged of nic was wrong",
    ),
    Case(
        "KatSilencedForLong",
        "ticket",
        fires={_SILENCED: "2x180"},
        quiet=[{_SILENCED: "2x100 0 2x79"}],
        at="175h",
        every="1h",
        labels=_LABELS,
        summary="2 incidents at kat-0:8888 were silenced all week",
    ),
]
