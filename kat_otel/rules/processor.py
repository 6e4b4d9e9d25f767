"""Alerts on the processor itself: is it there, does it lose anything, does what it finds get out?

A page is what leaves the fleet unwatched or is about to; what costs a part of the picture becomes a
ticket. Levels are compared with the limits that the processor tells beside them.
"""

from __future__ import annotations

from typing import Final

from kat_otel.dashboards import names
from kat_otel.dashboards.names import own
from kat_otel.dashboards.promql import counted, equals, selected
from kat_otel.rules.rule import Alert, Group, Severity

__all__ = ["DEFECTS", "NOT_JUDGED", "groups"]

NOT_JUDGED: Final = ("steps failed", "batches failed", "late spans failed")
"""Events by which spans leave as they came: a defect of ours kept them from being judged."""

DEFECTS: Final = (
    *("verdicts untold", "diagnoses failed", "metrics failed", "hardware signals failed"),
    *("histories not written", "requests stuck"),
)
"""Events by which something else that was known is not told: defects of ours, too."""

_WHO: Final = "job, instance"
_AT: Final = "{{ $labels.instance }}"
_NUMBER: Final = "{{ $value | humanize }}"
_SHARE: Final = "{{ $value | humanizePercentage }}"
_TIME: Final = "{{ $value | humanizeDuration }}"
_NEAR: Final = 0.8
"""Of a limit, above which it is near."""


def groups() -> list[Group]:
    """Returns the alerts on the processor's health, by what they ask."""
    return [
        Group("kat-processor-there", _there()),
        Group("kat-processor-taking", _taking()),
        Group("kat-processor-judging", _judging()),
        Group("kat-processor-sending", _sending()),
        Group("kat-operators", _operators(), interval="15m"),  # they look back for weeks,
    ]


def _alert(
    name: str,
    severity: Severity,
    when: str,
    expression: str,
    lasts: str,
    *,
    summary: str,
    cost: str,
    action: str,
) -> Alert:
    """An alert whose runbook is the section of its name in docs/operate.md."""
    runbook = f"operate.html#{name.lower()}"
    return Alert(name, severity, when, expression, lasts, summary, cost, action, runbook)


def _event(*said: str) -> str:
    return selected(own("events_total"), f'event=~"{"|".join(said)}"')


def _there() -> list[Alert]:
    runs = own("build_info")
    return [
        _alert(
            "KatProcessorAbsent",
            "page",
            "no processor is scraped",
            f"absent({runs})",
            "5m",
            summary="No kat process is scraped: nobody watches the fleet",
            cost="no incident is found or told, and none of the other alerts can fire.",
            action="look at the pods or units of kat process, then at the scrape job's targets.",
        ),
        _alert(
            "KatProcessorDown",
            "ticket",
            "a processor that was scraped within the hour does not answer",
            f"up == 0 and on ({_WHO}) last_over_time({runs}[1h])",
            "5m",
            summary=f"kat process at {_AT} does not answer scrapes",
            cost="its instances are not judged; their senders keep what they can.",
            action="kat doctor on its machine, and the end of its log.",
        ),
        _alert(
            "KatProcessorRestarts",
            "ticket",
            "a processor has started three times in half an hour",
            f"changes(process_start_time_seconds[30m]) > 2 and on ({_WHO}) {runs}",
            "",
            summary=f"kat process at {_AT} has started {{{{ $value }}}} times in half an hour",
            cost="each start judges the log's steps again, and verdicts come late.",
            action="read why it ended: its log's last lines, the pod's last state (OOMKilled?).",
        ),
        _alert(
            "KatFleetMetricsAbsent",
            "page",
            "processors judge steps, and no metric of the fleet arrives",
            f"absent({names.STEP}_count) and on () sum(rate({own('steps_total')}[5m])) > 0",
            "10m",
            summary="kat process judges steps, but Prometheus has no metric of the fleet",
            cost="incidents are found and no alert on them can fire.",
            action="see that the collector has kat process' metrics in a pipeline to its "
            "prometheus exporter, that Prometheus scrapes it, and metrics.interval is not 0.",
        ),
    ]


def _taking() -> list[Alert]:
    log, limit = own("log_bytes"), own("log_limit_bytes")
    invalid = selected(own("spans_total"), equals("outcome", "invalid"))
    return [
        _alert(
            "KatRequestsRefused",
            "ticket",
            "senders are told to send later, all the time",
            f"rate({selected(own('events_total'), equals('event', 'requests refused'))}[5m]) > 0",
            "5m",
            summary=f"kat process at {_AT} refuses {_NUMBER} requests a second",
            cost="senders queue; when their queue is full, they drop, and steps come in part.",
            action="see what is full: log, intake or assembly; what comes after it is behind.",
        ),
        _alert(
            "KatSpansInvalid",
            "ticket",
            "spans are rejected for good",
            f"{counted(invalid, '15m')} > 0",
            "",
            summary=f"kat process at {_AT} rejected {_NUMBER} spans in 15 minutes",
            cost="these spans are lost, and their steps come in part.",
            action="the sender's log has the reason that it was told; most often an attribute is "
            "too long.",
        ),
        _alert(
            "KatLogNearlyFull",
            "page",
            f"the write-ahead log is filled to {_NEAR:.0%}",
            f"{log} / {limit} > {_NEAR}",
            "10m",
            summary=f"The log of kat process at {_AT} is {_SHARE} full",
            cost="full, it refuses every request.",
            action="see why what it holds does not leave: the exporter's endpoint, most often.",
        ),
        _alert(
            "KatLogFillsUp",
            "ticket",
            "the write-ahead log will be full within four hours",
            f"predict_linear({log}[30m], 4 * 3600) > {limit} and {log} / {limit} > 0.2",
            "30m",
            summary=f"The log of kat process at {_AT} will be full within four hours",
            cost="full, it refuses every request.",
            action="compare spans acknowledged with spans forwarded: the endpoint takes less than "
            "arrives, or raise wal.max_size_mib.",
        ),
    ]


def _judging() -> list[Alert]:
    steps, verdict = own("steps_total"), own("verdict_latency_seconds")
    near = " or ".join(
        f"{own(f'assembling_{what}')} / {own(f'assembling_limit_{what}')} > {_NEAR}"
        for what in ("spans", "steps", "bytes")
    )
    rates = [f"sum by ({_WHO}) (rate({s}[15m]))" for s in (f'{steps}{{ending="waited"}}', steps)]
    early = counted(selected(steps, equals("ending", "limit")), "15m")
    return [
        _alert(
            "KatPendingNearLimit",
            "ticket",
            f"steps, spans or memory under assembly are at {_NEAR:.0%} of their limit",
            near,
            "10m",
            summary=f"kat process at {_AT} has {_SHARE} of what it may hold under assembly",
            cost="beyond it steps are judged without their last ranks, or senders wait.",
            action="see which ranks come late or not at all, then assembler.max_pending_*; or add "
            "a processor.",
        ),
        _alert(
            "KatStepsJudgedEarly",
            "ticket",
            "steps are judged early, for lack of room",
            f"{early} > 0",
            "10m",
            summary=f"kat process at {_AT} judged {_NUMBER} steps before all their "
            "spans were there",
            cost="a rank whose spans were missing is neither cleared nor blamed.",
            action="raise assembler.max_pending_* as memory allows, or add a processor.",
        ),
        _alert(
            "KatRanksMissing",
            "ticket",
            "of 20 steps, one or more is judged without all its ranks",
            f"{rates[0]} / {rates[1]} > 0.05",
            "15m",
            summary=f"{_SHARE} of the steps at {_AT} are judged without all their ranks",
            cost="a rank that is not there is neither cleared nor blamed, and each verdict waits "
            "for assembler.decision_wait.",
            action="the root of such a step names the missing ranks (kat.missing_ranks): look at "
            "their sender, and at the collector on their way.",
        ),
        _alert(
            "KatVerdictsLate",
            "ticket",
            "one of ten verdicts takes longer than 2.5 s",
            f"histogram_quantile(0.9, sum by ({_WHO}, le) (rate({verdict}_bucket[5m]))) > 2.5",
            "10m",
            summary=f"Verdicts at {_AT} take {_TIME} (9 of 10 are faster)",
            cost="incidents are told that much later.",
            action="judging takes one core: give it a whole one, or add a processor. If ranks are "
            "missing, too, see to that first.",
        ),
        _alert(
            "KatNotJudged",
            "ticket",
            "a stage failed on steps, which left unjudged",
            f"sum by ({_WHO}, event) ({counted(_event(*NOT_JUDGED), '1h')}) > 0",
            "",
            summary=f"kat process at {_AT} could not judge: {{{{ $labels.event }}}}, "
            f"{_NUMBER} in an hour",
            cost="their spans passed on as they came; an incident in them is not found.",
            action="a defect of KAT: its log has the traceback once. Please report it.",
        ),
        _alert(
            "KatInstancesAtLimit",
            "ticket",
            "as many instances as may have a history",
            f"{own('instances')} >= {own('instances_limit')}",
            "1h",
            summary=f"kat process at {_AT} has {{{{ $value }}}} instances, which is its limit",
            cost="for each new instance another forgets its history and learns anew.",
            action="raise assembler.max_instances, or add a processor.",
        ),
    ]


def _sending() -> list[Alert]:
    lost = selected(own("spans_total"), equals("outcome", "dropped"), 'reason!~"|repeated"')
    age, queue = own("export_last_success_age_seconds"), own("export_queue_bytes")
    given_up = selected(own("export_given_up_total"), 'reason!=""')
    return [
        _alert(
            "KatExportFailing",
            "page",
            "something waits for an endpoint that has taken nothing for two minutes",
            f"{age} > 120 and {queue} > 0",
            "5m",
            summary=f"The endpoint of kat process at {_AT} has taken nothing for {_TIME}",
            cost="no incident reaches Jaeger, logs or metrics; the log fills.",
            action="kat doctor beside it tries the endpoint with each signal and says what it "
            "answers.",
        ),
        _alert(
            "KatExportGivenUp",
            "ticket",
            "requests were given up",
            f"sum by ({_WHO}, signal, reason) ({counted(given_up, '15m')}) > 0",
            "",
            summary=f"kat process at {_AT} gave up {_NUMBER} requests of "
            "{{ $labels.signal }}: {{ $labels.reason }}",
            cost="the endpoint will never have them: traces, logs or points are missing.",
            action="its log names what the endpoint said; UNIMPLEMENTED: no pipeline for it.",
        ),
        _alert(
            "KatExportRejected",
            "ticket",
            "the endpoint left something out of what it took",
            f"increase({own('export_rejected_total')}[15m]) > 0",
            "",
            summary=f"The endpoint of kat process at {_AT} left out {_NUMBER} items "
            "of {{ $labels.signal }}",
            cost="these spans, records or points are missing where people look.",
            action="its log names what the endpoint said; mend it there.",
        ),
        _alert(
            "KatSpansDropped",
            "ticket",
            "spans were lost",
            f"sum by ({_WHO}, reason) ({counted(lost, '15m')}) > 0",
            "",
            summary=f"kat process at {_AT} dropped {_NUMBER} spans: {{{{ $labels.reason }}}}",
            cost="they were acknowledged and are lost.",
            action="the reason says where: an endpoint that refuses, or a defect to report.",
        ),
        _alert(
            "KatNotTold",
            "ticket",
            "something that was found could not be told",
            f"sum by ({_WHO}, event) ({counted(_event(*DEFECTS), '1h')}) > 0",
            "",
            summary=f"kat process at {_AT} could not tell: {{{{ $labels.event }}}}, "
            f"{_NUMBER} in an hour",
            cost="verdicts, metrics or what was learnt of an instance are missing.",
            action="a defect of KAT: its log has the traceback once. Please report it.",
        ),
    ]


def _operators() -> list[Alert]:
    said = f"sum by (component) ({counted(own('feedback_total'), '30d')})"
    wrong_selector = selected(own("feedback_total"), equals("verdict", "false"))
    wrong = f"sum by (component) ({counted(wrong_selector, '30d')})"
    return [
        _alert(
            "KatFindingsWrong",
            "ticket",
            "operators called half of a component's incidents wrong, three or more in 30 days",
            f"{wrong} / {said} >= 0.5 and {wrong} >= 3",
            "",
            summary=f"{_SHARE} of what operators judged of {{{{ $labels.component }}}} was wrong",
            cost="people stop to believe its pages.",
            action="kat feedback export, and see what the wrong ones share: an instance, a kind, a "
            "planned job. Then the thresholds of detector, and please tell us.",
        ),
        _alert(
            "KatSilencedForLong",
            "ticket",
            "an incident is silenced for a week",
            f"min_over_time({own('silenced_incidents')}[7d]) > 0",
            "",
            summary=f"{{{{ $value }}}} incidents at {_AT} were silenced all week",
            cost="what is silenced goes on costing, and nobody is told.",
            action="kat silence list: end it, or mend what it hides.",
        ),
    ]
