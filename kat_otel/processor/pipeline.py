"""The order of the steps, and nothing else: assemble -> judge -> mark -> reduce -> export.

Decoding has happened in the receiver's threads (see ``receiver.py``); everything here runs in
the one judging thread, so nothing here locks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np

from kat_otel import semconv
from kat_otel.config import Config
from kat_otel.kernels import classify
from kat_otel.otlp import encode_requests
from kat_otel.otlp.signals import LogEvent, encode_logs
from kat_otel.processor.assembler import AssembledStep, Assembler, LateSpans
from kat_otel.processor.exporter import Payload
from kat_otel.processor.hardware import HardwareJoin
from kat_otel.processor.incidents import IncidentJournal
from kat_otel.processor.intake import Batch
from kat_otel.processor.judges import Judges
from kat_otel.processor.ledger import Ledger
from kat_otel.processor.mark import Root, incident_attributes, mark_incidents, with_root
from kat_otel.processor.measure import Measurements, arrival_lateness
from kat_otel.processor.recent import Recent
from kat_otel.processor.reduce import cited_rows, select_spans, summary_spans, with_ancestors
from kat_otel.processor.sentence import summary_of
from kat_otel.spans import SpanKind, SpanTable
from kat_otel.telemetry import Books, Telemetry
from kat_otel.verdict import (
    Abstention,
    Clock,
    Coverage,
    Incident,
    Instance,
    Report,
    Source,
)

__all__ = ["Pipeline", "Sink"]

_FAILED: Final = "internal error"

logger = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes what leaves; ``exporter.Exporter`` is one."""

    def offer(self, payload: Payload, /) -> bool:
        """Takes a request; False if it was dropped (and counted by the sink)."""
        ...


class Pipeline:
    """One batch or tick at a time, through all steps.

    Args:
        config: all settings.
        judges: of the instances.
        sink: takes what leaves; None if nothing is exported.
        books: counts what becomes of the spans.
        ledger: where the batches are claimed that something still stands on.
        on_report: called with each judged step, in the judging thread.
        now: monotonic seconds at start.
        telemetry: where steps are timed.
        recent: remembers the last steps.
        capture: told the incidents of each step, to ask for whole steps where digests showed them.
    """

    def __init__(
        self,
        config: Config,
        judges: Judges[Any],
        sink: Sink | None,
        books: Books,
        *,
        ledger: Ledger | None = None,
        on_report: Callable[[Report, SpanTable], None] | None = None,
        now: float = 0.0,
        telemetry: Telemetry | None = None,
        recent: Recent | None = None,
        capture: Callable[[AssembledStep, list[Incident]], None] | None = None,
    ) -> None:
        self._config = config
        self._capture = capture
        self._telemetry = telemetry or Telemetry()
        self._recent = recent or Recent(config.debug.steps)
        self._ledger = Ledger() if ledger is None else ledger
        self._judges = judges
        self._sink = sink
        self._books = books
        self._on_report = on_report
        self._assembler = Assembler(config.assembler)
        self._journal = IncidentJournal(config.logs, config.traces)
        self._hardware = HardwareJoin(config.hardware)
        self._measurements = Measurements(time.time_ns())
        self._metrics_due = now + config.metrics.interval
        self._next_shown: dict[str, float] = {}
        self._recovered = 0  # receipts up to this one come from a former process

    def take(self, batch: Batch, *, recovered: bool = False) -> None:
        """Takes the spans of one request, judges the steps that they complete.

        Logs and metrics are passed on as they came.

        Args:
            batch: the request.
            recovered: it comes from the log of a former process, other batches of its steps may
                have left before.
        """
        mine = (batch.receipt,)
        if recovered:
            self._recovered = batch.receipt
        self._ledger.claim(mine)
        if batch.table is None:
            self._pass_on(batch, mine)
        else:
            self._assemble(batch, batch.table, mine)
        self.advance(batch.received)
        self._ledger.release(mine)

    def _assemble(self, batch: Batch, table: SpanTable, mine: tuple[int, ...]) -> None:
        arrivals = self._assembler.add(table, batch.received, batch.receipt)
        self._ledger.claim(mine * arrivals.waiting)
        self._books.count("dropped", arrivals.repeated, "repeated")
        for foreign in arrivals.foreign:
            self._send_spans(foreign, mine)
        for late in arrivals.late:
            self._send_late(late, mine)

    def _pass_on(self, batch: Batch, mine: tuple[int, ...]) -> None:
        if batch.signal != "traces":
            self._hardware.take(batch.signal, batch.data)
        if self._sink is None:
            self._books.mark(f"{batch.signal} requests without an exporter")
            return
        self._offer(Payload(batch.signal, batch.data, receipts=mine))

    def advance(self, now: float) -> None:
        """Judges what is due at ``now``, sends the metrics if they are."""
        for step in self._assembler.ready(now):
            self._handle(step, now)
        for instance in self._assembler.forgotten:
            self._judges.retire(instance)
            self._recent.forget(instance)
            self._next_shown.pop(instance, None)
            self._measurements.forget(instance)
        self._assembler.forgotten.clear()
        if self._config.metrics.interval and now >= self._metrics_due:
            self._metrics_due = now + self._config.metrics.interval
            self._send_metrics()

    def reload(self, config: Config) -> None:
        """Takes new settings between two batches; the judges' are told them by their owner."""
        if config.metrics.interval != self._config.metrics.interval:
            self._metrics_due = min(self._metrics_due, time.monotonic() + config.metrics.interval)
        self._config = config
        self._assembler.reload(config.assembler)
        self._journal.reload(config.logs, config.traces)
        self._hardware.reload(config.hardware)
        self._recent.resize(config.debug.steps)

    def fill(self) -> tuple[int, int, int, int]:
        """Returns steps, spans and bytes under assembly, and instances; from any thread."""
        return self._assembler.fill()

    def next_due(self) -> float:
        """Returns the monotonic second at which :meth:`advance` has work without new spans."""
        due = self._assembler.next_deadline()
        return min(due, self._metrics_due) if self._config.metrics.interval else due

    def finish(self, now: float, *, keep: bool = False) -> None:
        """Judges and sends everything that is under assembly, at shutdown.

        Args:
            now: monotonic seconds.
            keep: steps that are not complete stay in the log, to be joined after a restart by what
                their other ranks send then.
        """
        for step in self._assembler.flush():
            if keep and step.ending != "complete":
                self._books.mark("steps left in the log")
            else:
                self._handle(step, now)
        self._judges.close()
        if self._config.metrics.interval:
            self._send_metrics()

    def _handle(self, step: AssembledStep, now: float) -> None:
        if step.ending != "complete" and min(step.receipts) <= self._recovered:
            self._send_rest(step)
            return
        self._books.mark(f"steps {step.ending}")
        watch = self._telemetry.watch("step", step.first_seen)
        watch.lap("assemble")
        # Workers may call a collective a kernel: what its name tells is used from here on.
        step = replace(step, table=classify(step.table)[0])
        report = self._judge(step)
        self._hardware.explain(report, step.table, now)
        watch.lap("judge")
        latency = time.monotonic() - step.last_seen
        self._telemetry.latencies.observe("verdict", latency)
        self._recent.judged(step, report, latency)
        failed = report.abstained is not None and report.abstained.reason == _FAILED
        active = [incident for incident in report.incidents if incident.status != "resolved"]
        if self._capture is not None:
            self._capture(step, active)
        whole = bool(active) and self._journal.leaves_whole(active, now)
        if active or failed or self._shown(step, now):
            self._send_step(step, report, active, whole=whole)
        else:  # all of it is in the metrics
            self._books.count("summarised", len(step.table))
        self._tell(step, report.incidents, now)
        watch.lap("send")
        watch.stop(spans=len(step.table), ending=step.ending, incidents=len(active))
        news = any(incident.status != "ongoing" for incident in report.incidents)
        self._judges.judged(step.instance, now, news=news)
        self._ledger.release(step.receipts)
        span_of_time = int(step.table.end_ns.max() - step.table.start_ns.min())
        duration = sum(found.duration_ns for found in report.steps) or span_of_time
        comparable = report.source.clock.state != "unaligned"
        lateness = arrival_lateness(step.table) if comparable else {}
        self._measurements.step(step.instance, duration, lateness)
        if self._on_report is not None:
            self._on_report(report, step.table)

    def _judge(self, step: AssembledStep) -> Report:
        try:
            report = self._judges.of(step.instance).judge(step.table)
        except Exception as error:
            # One step that the judge cannot stomach must not stop the fleet's eyes. It leaves
            # unjudged and says so, and the judge, whose state may be half changed, starts anew.
            logger.exception("instance %s, step %d: judging failed", step.instance, step.step)
            self._books.mark("steps failed")
            self._judges.dismiss(step.instance)
            report = _unjudged(step, error)
        if report.instance is None and step.instance:
            report.instance = Instance(id=step.instance)
        if note := _completeness(step):
            report.coverage.notes.append(note)
        return report

    def _shown(self, step: AssembledStep, now: float) -> bool:
        """Returns whether a step without an incident leaves as a trace all the same."""
        traces = self._config.traces
        if traces.healthy == "all" or step.ending != "complete":
            return True
        if now < self._next_shown.get(step.instance, now):
            return False
        self._next_shown[step.instance] = now + traces.healthy_interval
        return True

    def _send_step(
        self, step: AssembledStep, report: Report, active: list[Incident], *, whole: bool
    ) -> None:
        table = step.table
        bounds = int(table.start_ns.min()), int(table.end_ns.max())
        # Workers name the root as their parent but the processor alone emits it.
        own = table.kind != SpanKind.STEP
        limit = self._config.traces.max_spans_per_trace - 1
        cited = np.zeros(len(table), dtype=np.bool_)
        for incident in active:
            rows = cited_rows(table, incident)
            cited[rows[rows >= 0]] = True
        if whole or self._config.traces.healthy == "all":
            kept = select_spans(table, cited, limit)
        else:
            kept = summary_spans(table) | with_ancestors(table, cited)
        kept &= own
        step.record.forwarded_whole = bool(np.all(kept | ~own))
        summarised = int(len(table) - np.count_nonzero(kept))
        self._books.count("summarised", summarised)
        if not np.any(kept):
            return
        marked = mark_incidents(table, active, reports=whole).take(kept)
        notes = _completeness(step)
        if report.abstained is not None:
            notes = "; ".join(filter(None, (notes, f"not judged: {report.abstained.reason}")))
        root = Root(step.instance, step.step, summarised, step.missing_ranks, notes, whole)
        self._send_spans(with_root(marked, bounds, root, active), step.receipts, created=1)

    def _send_rest(self, step: AssembledStep) -> None:
        """Sends what is left of a step that was at work when a former process died.

        The rest of it may have left then: judged by what is here, ranks would be called missing
        that were not.
        """
        self._books.mark("steps in part after a restart")
        # Whole: how the rest left is not known, and an incident may cite what is here.
        step.record.forwarded_whole = True
        late = LateSpans(step.instance, step.table, forwarded_whole=True)
        self._send_late(late, step.receipts)
        self._ledger.release(step.receipts)

    def _send_late(self, late: LateSpans, receipts: tuple[int, ...]) -> None:
        self._books.mark("late spans", len(late.table))
        table = late.table
        if not late.forwarded_whole:  # their step left as a summary, so do they
            kept = table.kind == SpanKind.WORKER_STEP
            self._books.count("summarised", int(np.count_nonzero(~kept)))
            table = table.take(kept)
        marks = {
            row: {**table.attributes.get(row, {}), semconv.LATE: True} for row in range(len(table))
        }
        self._send_spans(replace(table, attributes=marks), receipts)

    def _send_spans(self, table: SpanTable, receipts: tuple[int, ...], created: int = 0) -> None:
        """Sends the table; its first ``created`` rows are ours and stand in no book."""
        if self._sink is None:
            self._books.count("dropped", len(table) - created, "no exporter")
            return
        limit = int(self._config.exporter.max_request_mib * 2**20)
        for request in encode_requests(table, limit=limit):
            acknowledged = int(np.count_nonzero(request.rows >= created))
            self._offer(Payload("traces", request.data, acknowledged, receipts))

    def _offer(self, payload: Payload) -> None:
        if self._sink is not None:
            self._ledger.claim(payload.receipts)
            self._sink.offer(payload)

    def _tell(self, step: AssembledStep, incidents: list[Incident], now: float) -> None:
        new = {incident.id for incident in incidents if self._journal.is_new(incident)}
        for incident in incidents:
            self._measurements.incident(step.instance, incident, new=incident.id in new)
        changed = self._journal.changed(incidents, now)
        for incident in changed:
            logger.info("instance %s: %s", step.instance or "?", summary_of(incident))
        if self._sink is None or not changed:
            return
        resource = {semconv.SERVICE_NAME: "kat", semconv.INSTANCE_ID: step.instance}
        events = [_log_event(incident) for incident in changed]
        # The event is owed as long as the step: after a crash both are made again.
        self._offer(Payload("logs", encode_logs(resource, events), receipts=step.receipts))

    def _send_metrics(self) -> None:
        if self._sink is not None:
            data = self._measurements.encode(self._books, time.time_ns())
            self._offer(Payload("metrics", data))


def _unjudged(step: AssembledStep, error: Exception) -> Report:
    table = step.table
    return Report(
        source=Source(
            files=[],
            ranks=np.unique(table.rank).tolist(),
            world_size=None,
            resolution_ns=max(resource.resolution_ns for resource in table.resources),
            clock=Clock(state="unaligned", max_offset_ns=0),
        ),
        coverage=Coverage(
            spans=len(table),
            kernels=int(np.count_nonzero(table.on_gpu)),
            aligned=0,
            unmatched=0,
            notes=[],
        ),
        steps=[],
        incidents=[],
        abstained=Abstention(reason=_FAILED, detail=f"{type(error).__name__}: {error}"),
    )


def _completeness(step: AssembledStep) -> str:
    """Returns what the step lacks, in a sentence; ``""`` if nothing."""
    if step.ending == "complete":
        return ""
    if step.missing_ranks:
        missing = f"ranks {', '.join(map(str, step.missing_ranks[:16]))} did not close the step"
    elif step.missing_count > 0:
        missing = f"{step.missing_count} rank(s) did not close the step"
    else:
        missing = "the workers did not say how many ranks the step has"
    why = {"waited": "after decision_wait", "limit": "early, memory limit", "shutdown": "at stop"}
    return f"judged incomplete ({why[step.ending]}): {missing}"


def _log_event(incident: Incident) -> LogEvent:
    span = incident.spans[0] if incident.spans else None
    return LogEvent(
        name=semconv.EVENT_INCIDENT,
        time_ns=incident.last_seen,
        observed_ns=time.time_ns(),
        body=summary_of(incident),
        attributes=incident_attributes(incident),
        warning=incident.page and incident.status != "resolved",
        trace_id=bytes.fromhex(span.trace_id) if span else b"",
        span_id=bytes.fromhex(span.span_id) if span else b"",
    )
