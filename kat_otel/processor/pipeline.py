"""The order of the steps, and nothing else: assemble -> judge -> mark -> reduce -> export.

Decoding has happened in the receiver's threads (see ``receiver.py``); everything here runs in
the one judging thread, so nothing here locks. Spans of which a stage fails leave as they came:
what becomes of them is worked out first, and said and sent when nothing can fail any more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from kat_otel import semconv
from kat_otel.config import Config
from kat_otel.processor.assembled import AssembledStep, LateSpans
from kat_otel.processor.assembler import Assembler
from kat_otel.processor.defects import Defects
from kat_otel.processor.diagnoses import Diagnoses
from kat_otel.processor.digest_steps import WaitingDigests
from kat_otel.processor.exporter import Payload
from kat_otel.processor.hardware import HardwareJoin
from kat_otel.processor.incidents import IncidentJournal
from kat_otel.processor.intake import Batch
from kat_otel.processor.judges import Judges
from kat_otel.processor.judging import FAILED, Judging
from kat_otel.processor.leaving import Leaving, as_they_came, as_trace, encoded
from kat_otel.processor.ledger import Ledger
from kat_otel.processor.log_events import encode_events
from kat_otel.processor.mark import culprit_span
from kat_otel.processor.measure import Measurements, arrival_lateness
from kat_otel.processor.questions import Explain
from kat_otel.processor.recent import Recent, duration_of
from kat_otel.processor.sentence import summary_of
from kat_otel.processor.silences import Silences
from kat_otel.spans import SpanKind, SpanTable
from kat_otel.telemetry import Books, Telemetry
from kat_otel.verdict import Incident, Report

__all__ = ["Pipeline", "Sink"]

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
        silences: of operators.
        explain: told the incidents that have just left and of which there is news, to have a model
            explain them; returns at once.
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
        silences: Silences | None = None,
        explain: Explain | None = None,
    ) -> None:
        self._config = config
        self._explain = explain
        self._capture = capture
        self._silences = silences or Silences()
        self._telemetry = telemetry or Telemetry()
        self._recent = recent or Recent(config.debug.steps)
        self._ledger = Ledger() if ledger is None else ledger
        self._judges = judges
        self._judging = Judging(judges, books)
        self._waiting = WaitingDigests(config.digests)
        self._sink = sink
        self._books = books
        self._on_report = on_report
        self._defects = Defects(books)
        self._assembler = Assembler(config.assembler, self._defects)
        self._journal = IncidentJournal(config.logs, config.traces)
        self._hardware = HardwareJoin(config.hardware)
        self._diagnoses = Diagnoses()
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
        for other in (*arrivals.foreign, *arrivals.poison):
            self._leave(as_they_came([other], mine, self._limit))
        for late in arrivals.late:
            self._send_late(late, mine)

    def _pass_on(self, batch: Batch, mine: tuple[int, ...]) -> None:
        if batch.signal != "traces":
            signal = batch.signal
            read = partial(self._hardware.take, signal, batch.data)
            self._defects.guard(read, "hardware signals failed", f"{signal} could not be read")
        self._books.mark(f"{batch.signal} requests")
        if self._sink is None:
            self._books.mark(f"{batch.signal} requests without an exporter")
            return
        self._offer(Payload(batch.signal, batch.data, receipts=mine))

    def advance(self, now: float) -> None:
        """Judges what is due at ``now``, sends the metrics if they are."""
        for step in self._assembler.ready(now):
            self._take(step, now)
        while (due := self._waiting.due(now)) is not None:
            self._handle_waiting(due, now)
        for instance in self._assembler.forgotten:
            self._handle_waiting(instance, now)
            self._judges.retire(instance)
            self._recent.forget(instance)
            self._next_shown.pop(instance, None)
            self._measurements.forget(instance)
            self._books.mark("instances forgotten")
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
        self._waiting.reload(config.digests)
        self._journal.reload(config.logs, config.traces)
        self._hardware.reload(config.hardware)
        self._recent.reload(config.debug)

    def fill(self) -> tuple[int, int, int, int]:
        """Returns steps and spans under assembly or waiting, bytes under assembly, and instances.

        May be called from any thread.
        """
        steps, spans, size, instances = self._assembler.fill()
        waiting_steps, waiting_spans = self._waiting.fill()
        return steps + waiting_steps, spans + waiting_spans, size, instances

    @property
    def crowded(self) -> bool:
        """Whether senders are to wait until less is under assembly; from any thread."""
        return self._config.assembler.over_limit == "refuse" and self._assembler.crowded

    def next_due(self) -> float:
        """Returns the monotonic second at which :meth:`advance` has work without new spans."""
        due = min(self._assembler.next_deadline(), self._waiting.next_due())
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
                self._take(step, now)
        for instance in self._waiting.instances():
            self._handle_waiting(instance, now)
        self._judges.close()
        if self._config.metrics.interval:
            self._send_metrics()

    def _take(self, step: AssembledStep, now: float) -> None:
        """Handles a step, or lets it wait for others that are judged with it."""
        if step.ending != "complete" and min(step.receipts) <= self._recovered:
            self._send_rest(step)
        elif not self._waiting.takes(step):
            self._handle_waiting(step.instance, now)  # an instance's steps stay in order
            self._put_together(step)
            self._handle([step], now)
        elif self._waiting.put(step, now):
            self._handle_waiting(step.instance, now)

    def _put_together(self, step: AssembledStep) -> None:
        """Makes a table of digests, if the step has any and it can be done."""
        what = f"{_name(step)}: its digests stay apart"
        self._defects.guard(lambda: step.unmarked, "steps failed", what)

    def _handle_waiting(self, instance: str, now: float) -> None:
        if steps := self._waiting.take(instance):
            self._handle(steps, now)

    def _handle(self, steps: Sequence[AssembledStep], now: float) -> None:
        """Judges steps of one instance and sends what is to be said of them."""
        watches = [self._telemetry.watch("step", step.first_seen) for step in steps]
        for watch in watches:
            watch.lap("assemble")
        instance, news = steps[0].instance, False
        reports, judged = self._judge(steps), time.monotonic()
        for watch in watches:
            watch.lap("judge")
        for step, report, watch in zip(steps, reports, watches, strict=True):
            self._books.mark(f"steps {step.ending}")
            leaving = None if report is None else self._leaving(step, report, now)
            if report is None or leaving is None:
                # Kept for another try they would fail again, after every restart too.
                step.record.forwarded_whole = True
                self._leave(as_they_came(step.as_they_came(), step.receipts, self._limit))
                continue
            self._leave(leaving)
            self._defects.guard(
                partial(self._tell, step, report, now, judged - step.last_seen),
                "verdicts untold",
                f"{_name(step)}: its spans have left, but not all is told of it",
            )
            watch.lap("send")
            watch.stop(spans=len(step.spans), ending=step.ending, incidents=len(report.active))
            news = news or any(incident.status != "ongoing" for incident in report.incidents)
            if self._on_report is not None:
                self._on_report(report, step.table)
        written = partial(self._judges.judged, instance, now, news=news)
        self._defects.guard(written, "histories not written", f"instance {instance or '?'}")
        self._ledger.release([receipt for step in steps for receipt in step.receipts])

    def _judge(self, steps: Sequence[AssembledStep]) -> Sequence[Report | None]:
        """Returns the reports of steps, None where their spans are to leave unjudged."""
        if steps[0].parts:  # could not be put together; such a step comes alone
            return [None]
        reports = self._defects.guard(
            partial(self._judging.judge, steps, old=max(steps[-1].receipts) <= self._recovered),
            "steps failed",
            f"{_name(steps[0])}: its spans leave as they came, unjudged",
        )
        if reports is None:
            self._books.mark("steps failed", len(steps) - 1)
        return [None] * len(steps) if reports is None else reports

    def _shown(self, step: AssembledStep, now: float) -> bool:
        """Returns whether a step without an incident leaves as a trace all the same."""
        traces = self._config.traces
        if traces.healthy == "all" or step.ending != "complete":
            return True
        if now < self._next_shown.get(step.instance, now):
            return False
        self._next_shown[step.instance] = now + traces.healthy_interval
        return True

    def _leaving(self, step: AssembledStep, report: Report, now: float) -> Leaving | None:
        """Returns what becomes of a step's spans, None if that cannot be worked out."""
        what = f"{_name(step)}: its spans leave as they came, unjudged"
        return self._defects.guard(partial(self._fate, step, report, now), "steps failed", what)

    def _fate(self, step: AssembledStep, report: Report, now: float) -> Leaving:
        if report.incidents:
            self._defects.guard(
                lambda: self._hardware.explain(report, step.table, now),
                "hardware signals failed",
                f"{_name(step)}: judged without them",
            )
            # Afterwards: hardware may change the component that a silence speaks of.
            step.silenced = self._silences.hush(step.instance, report)
            self._defects.guard(
                partial(self._diagnoses.fill, report.incidents),
                "diagnoses failed",
                f"{_name(step)}: its incidents leave without",
            )
        active = report.active
        whole = bool(active) and self._journal.leaves_whole(active, now)
        failed = report.abstained is not None and report.abstained.reason == FAILED
        if not (active or failed or self._shown(step, now)):  # all of it is in the metrics
            return Leaving(fates={("summarised", ""): len(step.spans)})
        return as_trace(step, report, self._config.traces, self._limit, whole=whole)

    def _send_rest(self, step: AssembledStep) -> None:
        """Sends what is left of a step that was at work when a former process died.

        The rest of it may have left then: judged by what is here, ranks would be called missing
        that were not.
        """
        self._books.mark("steps in part after a restart")
        # Whole: how the rest left is not known, and an incident may cite what is here. So does
        # what is yet to come: its sender may try again only after the step's wait.
        step.record.forwarded_whole = True
        self._put_together(step)
        for table in step.as_they_came():
            late = LateSpans(step.instance, table, forwarded_whole=True)
            self._send_late(late, step.receipts)
        self._ledger.release(step.receipts)

    def _send_late(self, late: LateSpans, receipts: tuple[int, ...]) -> None:
        self._books.mark("late spans", len(late.table))
        leaving = self._defects.guard(
            lambda: self._late(late, receipts),
            "late spans failed",
            f"instance {late.instance or '?'}: they leave unmarked",
        )
        self._leave(leaving or as_they_came([late.table], receipts, self._limit))

    def _late(self, late: LateSpans, receipts: tuple[int, ...]) -> Leaving:
        table = late.table
        if not late.forwarded_whole:  # their step left as a summary, so do they
            table = table.take(table.kind == SpanKind.WORKER_STEP)
        marks = {
            row: {**table.attributes.get(row, {}), semconv.LATE: True} for row in range(len(table))
        }
        summarised = len(late.table) - len(table)
        marked = replace(table, attributes=marks)
        return encoded(marked, receipts, self._limit, summarised=summarised)

    @property
    def _limit(self) -> int | None:
        """Bytes of a request; None if nothing is exported."""
        if self._sink is None:
            return None
        return int(self._config.exporter.max_request_mib * 2**20)

    def _leave(self, leaving: Leaving) -> None:
        for (outcome, reason), spans in leaving.fates.items():
            self._books.count(outcome, spans, reason)
        for payload in leaving.payloads:
            self._offer(payload)

    def _offer(self, payload: Payload) -> None:
        if self._sink is not None:
            self._ledger.claim(payload.receipts)
            self._sink.offer(payload)

    def _tell(self, step: AssembledStep, report: Report, now: float, latency: float) -> None:
        self._telemetry.latencies.observe("verdict", latency)
        if report.incidents:
            self._tell_incidents(step, report, now)
        if self._capture is not None:
            self._capture(step, report.active)
        comparable = report.source.clock.state != "unaligned"
        lateness = arrival_lateness(step.unmarked) if comparable else {}
        self._recent.judged(step, report, latency, lateness)
        self._measurements.step(step.instance, duration_of(step, report), lateness)

    def _tell_incidents(self, step: AssembledStep, report: Report, now: float) -> None:
        incidents = report.incidents
        new = {incident.id for incident in incidents if self._journal.is_new(incident)}
        for incident in incidents:
            told = {"new": incident.id in new, "silenced": incident.id in step.silenced}
            self._measurements.incident(step.instance, incident, **told)
        changed = self._journal.changed(incidents, now, step.silenced)
        for incident in changed:
            logger.info("instance %s: %s", step.instance or "?", summary_of(incident))
        if self._sink is not None and changed:
            # The events are owed as long as the step: after a crash both are made again.
            data = encode_events(step.instance, changed, step.silenced)
            self._offer(Payload("logs", data, receipts=step.receipts))
        if self._explain is not None:
            for incident in changed:
                span = culprit_span(step.table, incident)
                self._explain(step.instance, incident, report, span)

    def _send_metrics(self) -> None:
        if self._sink is None:
            return
        encode = partial(self._measurements.encode, self._telemetry, time.time_ns())
        data = self._defects.guard(encode, "metrics failed", "they are left out this time")
        if data is not None:
            self._offer(Payload("metrics", data))


def _name(step: AssembledStep) -> str:
    return f"instance {step.instance or '?'}, step {step.step}"
