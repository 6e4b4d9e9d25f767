"""What a running processor says of itself: the conditions it lives under, and how full it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from kat_otel.config import Config
from kat_otel.processor.conditions import Condition
from kat_otel.processor.exporter import Exporter
from kat_otel.processor.ingest import Ingest
from kat_otel.processor.intake import Intake
from kat_otel.processor.ledger import Ledger
from kat_otel.processor.pipeline import Pipeline
from kat_otel.processor.wal import WriteAheadLog
from kat_otel.telemetry import Gauges

__all__ = ["Wellbeing"]


@dataclass(frozen=True, slots=True)
class Wellbeing:
    """Looks at the parts of a processor, from any thread.

    Attributes:
        config: returns the settings in force.
        failure: returns what the judging thread died of; None if it runs.
        since: when the processor was made, monotonic seconds.
    """

    ingest: Ingest
    intake: Intake
    pipeline: Pipeline
    ledger: Ledger
    log: WriteAheadLog | None
    exporter: Exporter | None
    config: Callable[[], Config]
    failure: Callable[[], Exception | None]
    since: float

    def live(self) -> list[Condition]:
        """Returns what must hold or the process should be restarted."""
        failure = self.failure()
        state = "runs" if failure is None else f"died of {failure!r}"
        conditions = [Condition("judging", failure is None, state)]
        if self.exporter is not None and (failure := self.exporter.failure) is not None:
            conditions.append(Condition("exporting", ok=False, detail=f"died of {failure!r}"))
        return conditions

    def ready(self) -> list[Condition]:
        """Returns what must hold or it should get no requests."""
        closed = self.intake.closed
        problem = self.ingest.log_problem
        kept = "memory only" if self.log is None else f"{self.log.size_bytes:,} bytes pending"
        return [
            *self.live(),
            Condition("receiving", not closed, "stopping" if closed else "takes requests"),
            Condition("log", not problem, problem or kept),
            # The log takes what arrives while the endpoint is away: that is told, no more.
            Condition("endpoint", ok=True, detail=self._endpoint()),
        ]

    def set_gauges(self, gauges: Gauges) -> None:
        """Says where the levels are read."""
        gauges.set("intake_bytes", lambda: self.intake.used)
        gauges.set("assembling_steps", lambda: self.pipeline.fill()[0])
        gauges.set("assembling_spans", lambda: self.pipeline.fill()[1])
        gauges.set("assembling_bytes", lambda: self.pipeline.fill()[2])
        gauges.set("instances", lambda: self.pipeline.fill()[3])
        if log := self.log:
            gauges.set("log_bytes", lambda: log.size_bytes)
            gauges.set("log_records", lambda: len(self.ledger))
        if exporter := self.exporter:
            gauges.set("export_queue_bytes", lambda: exporter.queued_bytes)
            gauges.set(
                "export_last_success_age",
                lambda: time.monotonic() - (exporter.last_success or self.since),
            )
        self._set_limits(gauges)

    def _set_limits(self, gauges: Gauges) -> None:
        """Says beside the levels where they end: an alert need not know the settings."""
        gauges.set("intake_limit_bytes", lambda: self.config().receiver.queue_size_mib * 2**20)
        gauges.set("assembling_limit_steps", lambda: self.config().assembler.max_pending_steps)
        gauges.set("assembling_limit_spans", lambda: self.config().assembler.max_pending_spans)
        gauges.set(
            "assembling_limit_bytes", lambda: self.config().assembler.max_pending_mib * 2**20
        )
        gauges.set("instances_limit", lambda: self.config().assembler.max_instances)
        if log := self.log:
            gauges.set("log_limit_bytes", lambda: log.limit_bytes)
        if self.exporter:
            queue = "export_queue_limit_bytes"
            gauges.set(queue, lambda: self.config().exporter.queue_size_mib * 2**20)

    def _endpoint(self) -> str:
        if self.exporter is None:
            return "exports nowhere"
        if self.exporter.last_success is None:
            return "has acknowledged nothing yet"
        return f"acknowledged {time.monotonic() - self.exporter.last_success:.0f} s ago"
