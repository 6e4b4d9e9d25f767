"""What becomes of a request, whichever server it came through: taken, invalid or not now.

The order is a promise: room is reserved, the bytes are understood, the log has them, and only
then are they queued and acknowledged. A handler never waits for other requests' spans: what
belongs to one step may stand behind its own request in a sender's queue.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

from google.protobuf.message import DecodeError as ProtobufDecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from kat_otel.config import ReceiverConfig
from kat_otel.errors import DecodeError, LogFailedError, LogFullError, LogTooSmallError
from kat_otel.otlp import Rejected, decode_traces
from kat_otel.otlp.intern import SharedStrings
from kat_otel.processor.exporter import Signal
from kat_otel.processor.intake import Batch, Intake
from kat_otel.processor.rarely import Rarely
from kat_otel.spans import SpanTable
from kat_otel.telemetry import Books, Telemetry

__all__ = ["Answer", "Ingest", "Log", "NoLog", "Outcome"]

Outcome = Literal["taken", "invalid", "busy", "closing"]
"""``invalid`` is for good: sent again it fails again. ``busy`` and ``closing``: try later."""

_PASSED_ON: Final[dict[Signal, Any]] = {
    "logs": ExportLogsServiceRequest,
    "metrics": ExportMetricsServiceRequest,
}
_LONGEST_MESSAGE: Final = 1_000  # gRPC's headers hold 8 KiB, and messages may quote the request
_BELIEVED_S: Final = 10.0
"""How long the last refusal of the log counts: a supervisor's usual interval."""

logger = logging.getLogger(__name__)


class Log(Protocol):
    """Holds what is acknowledged until it is settled; ``wal.WriteAheadLog`` is one."""

    def append(self, signal: Signal, data: bytes, received_ns: int) -> int:
        """Returns a request's receipt once it is on disk.

        Args:
            signal: what it carries.
            data: the request, in protobuf form.
            received_ns: Unix ns.

        Raises:
            LogTooSmallError: there will never be room.
            LogFullError: there is no room now.
            LogFailedError: it could not be written.
        """
        ...

    def has_room(self, size: int) -> bool:
        """Returns whether its bound allows a request of ``size`` bytes now."""
        ...


class NoLog:
    """Receipts for requests that are kept in memory only."""

    def __init__(self) -> None:
        self._next = itertools.count(1)

    def append(self, signal: Signal, data: bytes, received_ns: int) -> int:
        """Returns the next number."""
        del signal, data, received_ns
        return next(self._next)

    def has_room(self, size: int) -> bool:
        """Returns True: the intake is what bounds the memory."""
        del size
        return True


class _Problem(NamedTuple):
    """Why the log did not take a request of ``size`` bytes, and when: monotonic seconds."""

    text: str
    size: int
    at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a sender is told.

    Attributes:
        outcome: see :data:`Outcome`.
        message: why it was not taken, or why single spans were not.
        rejected: spans rejected for good in a request that was taken.
        retry_after: seconds, for ``busy`` and ``closing``.
    """

    outcome: Outcome
    message: str = ""
    rejected: int = 0
    retry_after: float = 0.0


class Ingest:
    """Takes requests from the threads of all servers.

    Args:
        config: the receiver's settings.
        intake: takes what was acknowledged.
        books: counts it.
        clock: monotonic seconds.
        log: where it is kept; memory only if None.
        telemetry: where requests are timed.
        crowded: whether traces are to wait until less is under assembly.
    """

    def __init__(
        self,
        config: ReceiverConfig,
        intake: Intake,
        books: Books,
        clock: Callable[[], float] = time.monotonic,
        log: Log | None = None,
        *,
        telemetry: Telemetry | None = None,
        crowded: Callable[[], bool] = lambda: False,
    ) -> None:
        self._crowded = crowded
        self._retry_after = config.retry_after
        self._intake = intake
        self._books = books
        self._clock = clock
        self._log: Log = NoLog() if log is None else log
        # Requests share their texts: each is looked up, not met anew, and a step's tables are
        # joined without another look at them.
        self._strings = SharedStrings(config.max_strings)
        self._max_attribute_bytes = config.max_attribute_bytes
        self._telemetry = telemetry or Telemetry(clock)
        self._problem: _Problem | None = None
        self._rarely = Rarely()

    @property
    def closing(self) -> bool:
        """Whether nothing is taken any more."""
        return self._intake.closed

    @property
    def log_problem(self) -> str:
        """Why the log would not take a request now; ``""`` if it would, for all that is known.

        Who is not ready gets no requests, so none may be needed to find out that all is well
        again: a full log is asked for room, and a disk's refusal is believed for a while only.
        """
        problem = self._problem
        if problem is None:
            return ""
        recent = self._clock() - problem.at < _BELIEVED_S
        return problem.text if recent or not self._log.has_room(problem.size) else ""

    def submit(self, signal: Signal, data: bytes, peer: str) -> Answer:
        """Takes a request, or says why not. Blocks for decoding and for the log, no longer.

        Args:
            signal: what it carries.
            data: the export request in protobuf form, unpacked.
            peer: who sent it, for messages.
        """
        received = self._clock()
        if signal == "traces" and self._crowded():
            return self.refuse("too much waits for the rest of its step, send again later")
        if not self._intake.reserve(len(data)):
            return self.refuse()
        accepted = False
        watch = self._telemetry.watch("request", received)
        try:
            table, rejected = self._read(signal, data)
            watch.lap("decode")
            spans = 0 if table is None else len(table)
            self._books.mark("decoded spans", spans)
            self._books.mark("decoded bytes", len(data))
            if data and (table is None or spans):
                receipt = self._log.append(signal, data, time.time_ns())
                self._problem = None
                watch.lap("append")
                if table is not None:
                    self._books.count("acknowledged", len(table))
                self._intake.accept(_batch(table, received, receipt, signal, data))
                accepted = True
        except (DecodeError, LogTooSmallError) as error:
            return self.invalid(str(error), peer)
        except MemoryError:
            return self.refuse("out of memory, send again later")
        except LogFullError as error:
            self._problem = _Problem(str(error), len(data), self._clock())
            self._say("the log is full", str(error))
            return self.refuse("the log is full, send again later")
        except LogFailedError as error:
            self._problem = _Problem(str(error), len(data), self._clock())
            self._say("the log failed", str(error))
            return self.refuse("the log cannot be written, send again later")
        finally:
            if not accepted:
                self._intake.release(len(data))
        watch.stop(signal=signal, spans=spans, bytes=len(data))
        self._books.count("invalid", rejected.spans)
        return Answer("taken", _sendable(rejected.reason), rejected.spans)

    def invalid(self, message: str, peer: str) -> Answer:
        """Refuses a request for good, counted and logged."""
        self._books.mark("requests invalid")
        self._say("requests refused for good", f"from {peer}: {message}")
        return Answer("invalid", _sendable(message))

    def refuse(self, message: str = "queue full, send again later") -> Answer:
        """Refuses a request for now, counted."""
        self._books.mark("requests refused")
        if self._intake.closed:
            return Answer("closing", "shutting down", retry_after=self._retry_after)
        return Answer("busy", message, retry_after=self._retry_after)

    def recover(self, signal: Signal, data: bytes, receipt: int) -> Batch:
        """Returns a request of the log as it was queued once; no limit refuses what was taken.

        Args:
            signal: what it carries.
            data: the request in protobuf form.
            receipt: the log's.

        Raises:
            DecodeError: it is not understood: another version has written it.
        """
        table = None
        if signal == "traces":
            table = decode_traces(data, rejected=Rejected(), strings=self._strings.current())
        return _batch(table, self._clock(), receipt, signal, data)

    def _read(self, signal: Signal, data: bytes) -> tuple[SpanTable | None, Rejected]:
        """Returns a request's spans, None for logs and metrics, and what was wrong with others.

        Raises:
            DecodeError: it is not a request of this signal.
        """
        rejected = Rejected()
        if signal == "traces":
            table = decode_traces(
                data,
                rejected=rejected,
                strings=self._strings.current(),
                max_attribute_bytes=self._max_attribute_bytes,
            )
            return table, rejected
        try:
            # Requests are joined byte by byte on their way out: one bad one would spoil others.
            _PASSED_ON[signal].FromString(data)
        except ProtobufDecodeError as error:
            raise DecodeError(
                f"request of {len(data):,} bytes: not OTLP {signal} ({error})"
            ) from error
        return None, rejected

    def _say(self, topic: str, detail: str) -> None:
        unsaid = self._rarely.unsaid(topic)
        if unsaid is None:
            return
        more = f" (and {unsaid:,} more before)" if unsaid else ""
        logger.warning("%s%s: %s", topic, more, detail[:_LONGEST_MESSAGE])


def _batch(
    table: SpanTable | None, received: float, receipt: int, signal: Signal, data: bytes
) -> Batch:
    """Returns a request as it is queued: its spans, or its bytes where they are passed on."""
    kept = data if table is None else b""
    return Batch(table, received, len(data), receipt, signal, kept)


def _sendable(message: str) -> str:
    """Returns a message that may quote a request's own bytes, in a form that any peer can read."""
    return message[:_LONGEST_MESSAGE].encode(errors="replace").decode()
