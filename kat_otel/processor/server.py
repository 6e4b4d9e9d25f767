"""Starts and stops the processor: receiver, judging thread, exporter, health."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kat_otel.config import Config, WalConfig
from kat_otel.errors import DecodeError, KatError
from kat_otel.otlp.warm import warm
from kat_otel.processor.asking import asking_of
from kat_otel.processor.control import ControlServer
from kat_otel.processor.desk import Desk
from kat_otel.processor.exhibits import Exhibits
from kat_otel.processor.exporter import Exporter, Payload
from kat_otel.processor.http_receiver import HttpReceiver
from kat_otel.processor.incident_pages import IncidentPages, PageMaker
from kat_otel.processor.ingest import Ingest
from kat_otel.processor.intake import Batch, Intake
from kat_otel.processor.judges import Judge, Judges, Memory
from kat_otel.processor.ledger import Ledger
from kat_otel.processor.live_view import LiveView
from kat_otel.processor.pipeline import Pipeline
from kat_otel.processor.ports import PortName, Ports
from kat_otel.processor.receiver import Receiver
from kat_otel.processor.recent import Recent
from kat_otel.processor.reload import check_tokens, plan_reload
from kat_otel.processor.self_traces import SelfTraces
from kat_otel.processor.state import StateStore, owner_of
from kat_otel.processor.suspect import Suspect
from kat_otel.processor.wal import Record, WriteAheadLog
from kat_otel.processor.wellbeing import Wellbeing
from kat_otel.spans import SpanTable
from kat_otel.telemetry import Books, Telemetry
from kat_otel.verdict import Report

__all__ = ["Processor", "ProcessorFailedError"]

_END_S: Final = 0.5
"""What judging may take beyond the deadline to write down what it has learnt."""

logger = logging.getLogger(__name__)


class ProcessorFailedError(KatError):
    """The judging or exporting thread died; its exception is the cause.

    What it held was not forwarded.
    """


class Processor:
    """``kat process``, also for embedding.

    A context manager: ``with Processor(config, on_report=show) as processor: processor.port``.

    Args:
        config: all settings. Port 0 listens on a free port; ``exporter.endpoint`` None exports
            nothing.
        on_report: called with every judged step's report and spans, in the judging thread.
        judge: makes the judge of a new instance; TTAD's detector by default.
        pages: makes the page of an incident for the debug port; None serves none.
    """

    def __init__(
        self,
        config: Config,
        *,
        on_report: Callable[[Report, SpanTable], None] | None = None,
        judge: Callable[[], Judge] | None = None,
        pages: PageMaker | None = None,
    ) -> None:
        self.telemetry = Telemetry()
        self.books = self.telemetry.books
        debug = config.debug
        shown = pages is not None and debug.endpoint is not None
        exhibits = Exhibits(debug.reports, debug.reports_mib * 2**20) if shown else None
        self._recent = Recent(debug.steps, exhibits=exhibits)
        self._pages = IncidentPages(self._recent.exhibits, self._recent.known, pages)
        self._config = config
        self._clock = time.monotonic
        self._intake = Intake(config.receiver.queue_size_mib * 2**20)
        self._log = _open_log(config.wal)
        ledger = Ledger(self._log.settle if self._log else None)
        self._exporter = (
            Exporter(
                config.exporter,
                self.books,
                ledger=ledger,
                durable=self._log is not None,
                telemetry=self.telemetry,
                on_failure=self._intake.close,  # what nobody sends must not be acknowledged
            )
            if config.exporter.endpoint
            else None
        )
        self._ingest = Ingest(
            config.receiver,
            self._intake,
            self.books,
            self._clock,
            self._log,
            telemetry=self.telemetry,
            crowded=lambda: self._pipeline.crowded,
        )
        self._receiver = Receiver(config.receiver, self._ingest)
        self._http = (
            HttpReceiver(config.receiver, self._ingest) if config.receiver.http.endpoint else None
        )
        self._desk = Desk(_state_folder(config), self._recent.known, self.books, self._send_log)
        self._control = (
            ControlServer(config, self.books, desk=self._desk) if config.control.endpoint else None
        )
        self._asking = asking_of(config, self.telemetry, self._recent.exhibits, self._exporter)
        judges, self._retune = _judges(config, judge, self.books)
        self._pipeline = Pipeline(
            config,
            judges,
            self._exporter,
            self.books,
            ledger=ledger,
            on_report=on_report,
            now=self._clock(),
            telemetry=self.telemetry,
            recent=self._recent,
            capture=self._control.found if self._control else None,
            silences=self._desk.silences,
            explain=self._asking.offer if self._asking else None,
        )
        self._reloaded: Config | None = None  # set by reload(), taken by the judging thread
        self._tell_of_work(config)
        self._failure: Exception | None = None
        self._ports = self._open_ports(ledger)
        self._ended = threading.Event()  # set when the judging thread has ended, for any reason
        self._thread = threading.Thread(target=self._run, name="kat-judge", daemon=True)
        self._started = False

    @property
    def port(self) -> int:
        """The port that receives OTLP over gRPC."""
        return self._receiver.port

    @property
    def http_port(self) -> int | None:
        """The port that receives OTLP over HTTP, if one is configured."""
        return self._http.port if self._http else None

    @property
    def control_port(self) -> int | None:
        """The port where workers ask which steps to send whole, if one is configured."""
        return self._control.port if self._control else None

    def port_of(self, name: PortName) -> int | None:
        """The port for health checks, Prometheus or people, if one is configured."""
        return self._ports.port(name)

    def start(self) -> None:
        """Starts everything.

        Raises:
            ConfigError: a port or certificate of the settings cannot be used.
        """
        try:
            self._listen()
        except BaseException:
            self._receiver.stop(0)
            self._ports.stop()
            if self._control:
                self._control.stop(0)
            if self._log:
                self._log.close()
            raise
        if self._exporter:
            self._exporter.start()
        if self._asking:
            self._asking.start()
        self._thread.start()
        self._started = True
        where = self._config.exporter.endpoint or "nowhere"
        logger.info("receiving OTLP on port %d, exporting to %s", self.port, where)

    def _listen(self) -> None:
        warm()  # before the first sender's deadline runs, not within it
        self._ports.start()
        if self._control:
            self._control.start()
        self._receiver.start()
        if self._http:
            self._http.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the judging thread to end by itself, which is a failure: its own or that of
        the exporting thread.

        Returns:
            False if ``timeout`` seconds passed and all is well.

        Raises:
            ProcessorFailedError: it died.
        """
        ended = self._ended.wait(timeout)
        if self._failure is not None:
            raise ProcessorFailedError(f"judging failed: {self._failure!r}") from self._failure
        if self._exporter and (failure := self._exporter.failure) is not None and ended:
            raise ProcessorFailedError(f"exporting failed: {failure!r}") from failure
        return ended

    def stop(self, timeout: float | None = None) -> None:
        """Takes nothing new, judges and sends what was acknowledged, logs the books.

        Args:
            timeout: seconds for all of it; ``shutdown_timeout`` of the settings if None. What
                is not sent by then stays in the log; without one it is dropped and counted.
        """
        if not self._started:
            return
        self._started = False
        deadline = self._clock() + (self._config.shutdown_timeout if timeout is None else timeout)

        def left() -> float:
            return max(0.0, deadline - self._clock())

        if self._control:
            self._control.stop(left() / 8)
        self._intake.close()  # new requests get UNAVAILABLE while those under way finish
        if self._http:
            self._http.stop(left() / 8)
        self._receiver.stop(left() / 4)
        self._thread.join(left() / 2)
        if self._thread.is_alive():
            kept = "is in the log" if self._log else "is lost"
            logger.error("stopping: judging did not end in time, what it holds %s", kept)
        if self._asking:
            self._asking.stop(left() / 4)
        if self._exporter:
            self._exporter.stop(left())
            self._thread.join(_END_S)  # it may have waited for room there
        if self._log and not self._thread.is_alive():
            self._log.close()
        self._ports.stop()
        logger.info("stopped; spans: %s", self.books.balance())

    def _open_ports(self, ledger: Ledger) -> Ports:
        wellbeing = Wellbeing(
            self._ingest,
            self._intake,
            self._pipeline,
            ledger,
            self._log,
            self._exporter,
            failure=lambda: self._failure,
            since=self._clock(),
        )
        wellbeing.set_gauges(self.telemetry.gauges)
        desk = self._desk
        return Ports(
            lambda: self._config,
            self.telemetry,
            self._recent,
            live=wellbeing.live,
            ready=wellbeing.ready,
            view=LiveView(self._recent, wellbeing.ready, desk.silences, desk.feedback),
            pages=self._pages,
        )

    def _send_log(self, data: bytes) -> bool:
        return self._exporter is None or self._exporter.try_offer(Payload("logs", data))

    def _tell_of_work(self, config: Config) -> None:
        exporter = self._exporter
        self.telemetry.on_work = None
        if config.telemetry.traces and exporter is not None:
            send = SelfTraces(
                lambda data: exporter.try_offer(Payload("traces", data, own=True)), self.books
            )
            self.telemetry.on_work = send.take

    def reload(self, config: Config) -> list[str]:
        """Takes new settings while running; judging takes its part before the next batch.

        Returns:
            Keys that differ and wait for a restart; what they say now stays in force.

        Raises:
            ConfigError: a token file cannot be read; all old settings stay.
        """
        check_tokens(config)
        plan = plan_reload(self._config, config)
        new = plan.config
        self._receiver.reload(new.receiver)
        if self._http:
            self._http.reload(new.receiver)
        self._ports.reload(new)
        if self._control:
            self._control.reload(new)
        if self._exporter:
            self._exporter.reload(new.exporter)
        if new.telemetry.traces != self._config.telemetry.traces:
            self._tell_of_work(new)
        self._config = self._reloaded = new
        self._intake.interrupt()
        logger.info("settings taken: %s", ", ".join(plan.changed) or "nothing has changed")
        if plan.restart:
            keys = ", ".join(plan.restart)
            logger.warning("these settings wait for a restart, the old ones stay: %s", keys)
        return plan.restart

    def _take_reloaded(self) -> None:
        config, self._reloaded = self._reloaded, None
        if config is not None:
            self._pipeline.reload(config)
            self._retune(config)

    def _run(self) -> None:
        try:
            if self._log:
                self._recover(self._log)
            while not self._intake.ended:
                self._turn()
            self._pipeline.finish(self._clock(), keep=self._log is not None)
        except Exception as error:
            # Nothing may be acknowledged that nobody judges: close, and let wait() tell.
            logger.exception("judging failed")
            self._failure = error
            self._intake.close()
        finally:
            self._ended.set()

    def _recover(self, log: WriteAheadLog) -> None:
        """Takes what a former process acknowledged and did not finish, before anything new."""
        records = spans = 0
        suspect = Suspect(log.directory)
        for record in log.pending():
            if self._intake.closed:  # the rest waits in the log for the next start
                break
            if suspect.ended_two_starts(record.id):
                self.books.mark("log records that ended two starts")
                logger.error("record %d ended two starts: it passes on as it came", record.id)
                batch = self._as_it_came(record)
            else:
                batch = self._recovered(record)
            if batch.table is not None:
                self.books.count("recovered", len(batch.table))
                spans += len(batch.table)
            records += 1
            self._pipeline.take(batch, recovered=True)
        suspect.close()
        if records:
            logger.info("took %d requests with %d spans from the log", records, spans)

    def _recovered(self, record: Record) -> Batch:
        """Returns a request of the log; one that is not understood now passes on as it came.

        It was understood once, by another version perhaps. Its spans stand in no book.
        """
        try:
            return self._ingest.recover(record.signal, record.data, record.id)
        except Exception as error:
            self.books.mark("log records not understood")
            told = not isinstance(error, DecodeError)  # what is a defect wants its traceback
            logger.warning("record %d is not understood: %s", record.id, error, exc_info=told)
            return self._as_it_came(record)

    def _as_it_came(self, record: Record) -> Batch:
        size = len(record.data)
        return Batch(None, self._clock(), size, record.id, record.signal, record.data)

    def _turn(self) -> None:
        due = self._pipeline.next_due()
        wait = None if math.isinf(due) and due > 0 else max(0.0, due - self._clock())
        batch = self._intake.take(wait)
        self._take_reloaded()
        if batch is None:
            self._pipeline.advance(self._clock())
            return
        # Deadlines run on the batches' own arrival times: a backlog in here must not make
        # steps look incomplete whose spans are waiting in the queue.
        self._pipeline.take(batch)
        self._intake.done(batch)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if error is None:
            self.wait(0)  # a failure of the judging thread must not pass unseen


def _open_log(config: WalConfig) -> WriteAheadLog | None:
    if config.directory is None:
        return None
    return WriteAheadLog(Path(config.directory).expanduser(), config.max_size_mib * 2**20)


def _state_folder(config: Config) -> Path | None:
    """Returns where states lie, and what operators say beside them; None if nowhere."""
    folder = config.state.directory or (config.wal.directory and f"{config.wal.directory}/state")
    return Path(folder).expanduser() if folder else None


def _judges(
    config: Config, make: Callable[[], Judge] | None, books: Books
) -> tuple[Judges[Any], Callable[[Config], None]]:
    """Returns the judges, and what tells them new thresholds.

    TTAD's detectors remember over a restart if a directory is given.
    """
    if make is not None:
        return Judges(make, books), lambda _: None
    from kat_otel.ttad import Detector, Settings  # noqa: PLC0415 - a stand-in judge needs neither
    from kat_otel.ttad.state import restore, snapshot  # noqa: PLC0415

    settings = Settings.of(config.detector, digests=config.digests.enabled)
    folder, memory = _state_folder(config), None
    if folder is not None:
        owner = owner_of(Path(config.wal.directory).expanduser()) if config.wal.directory else None
        shelf = StateStore(folder, mark=books.mark, owner=owner)
        memory = Memory(
            shelf, snapshot, lambda data: restore(data, settings=settings), config.state.interval
        )
    judges = Judges(lambda: Detector(settings), books, memory)

    def retune(config: Config) -> None:
        nonlocal settings
        settings = Settings.of(config.detector, digests=config.digests.enabled)
        for judge in judges:
            judge.reload(settings)

    return judges, retune
