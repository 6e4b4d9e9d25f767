"""Sends parcels to the collector, one after the other, from a thread of its own.

What a collector cannot take now is sent again, with growing pauses; what it refuses for good is
counted. Meanwhile the outbox fills and keeps its bound.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry.instrumentation.utils import suppress_instrumentation

from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.delivery import Delivery, GrpcDelivery, HttpDelivery, Outcome
from kat_otel.instrumentation.sending.endpoints import Endpoint, Signal
from kat_otel.instrumentation.sending.outbox import Outbox, Parcel

__all__ = ["QUEUE_BYTES", "Exporter", "deliveries"]

logger: Final = logging.getLogger(__name__)

QUEUE_BYTES: Final = 16 * 2**20

_FIRST_WAIT_S: Final = 0.5
_MOST_WAIT_S: Final = 30.0
_GIVE_UP_S: Final = 60.0
"""How long one request is tried. Steps of a minute ago are judged, if at all, with holes."""
_IDLE_S: Final = 3_600.0


def deliveries(environment: Mapping[str, str]) -> dict[Signal, Delivery]:
    """Returns the ways to the collector that the environment names."""
    signals: tuple[Signal, ...] = ("traces", "metrics")
    return {signal: _delivery(environment, signal) for signal in signals}


def _delivery(environment: Mapping[str, str], signal: Signal) -> Delivery:
    endpoint = Endpoint.read(environment, signal)
    if endpoint.protocol != "grpc":
        return HttpDelivery(endpoint)
    try:
        return GrpcDelivery(endpoint, signal)
    except (ImportError, OSError) as error:
        fallback = Endpoint.read({}, signal)
        logger.warning(
            "OTLP over gRPC for %s: %s; pip install grpcio, or OTEL_EXPORTER_OTLP_PROTOCOL="
            "http/protobuf. Sent by HTTP to %s meanwhile",
            signal,
            error,
            fallback.url,
        )
        return HttpDelivery(fallback)


class Exporter:
    """Takes parcels from any thread and delivers them in order.

    Args:
        ways: how each signal is delivered.
        counts: what is sent, dropped (by reason) and tried again.
        limit: bytes that may wait.
        first_wait: pause after a first failure, seconds; it doubles up to half a minute.
        give_up: how long one request is tried, seconds.
    """

    def __init__(
        self,
        ways: Mapping[Signal, Delivery],
        counts: Counts,
        *,
        limit: int = QUEUE_BYTES,
        first_wait: float = _FIRST_WAIT_S,
        give_up: float = _GIVE_UP_S,
    ) -> None:
        self._ways = ways
        self._counts = counts
        self._limit = limit
        self._outbox = Outbox(limit, counts)
        self.cpu_ns = 0
        """CPU time that sending has taken."""
        self._first_wait = first_wait
        self._give_up = give_up
        self._wait = first_wait
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._random = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._thread = threading.Thread(target=self._run, name="kat-export", daemon=True)

    @property
    def has_room(self) -> bool:
        """Whether what can wait may be offered: less than half of the room is taken."""
        return self._outbox.size < self._limit // 2

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def offer(self, parcel: Parcel) -> None:
        """Takes a parcel; never waits."""
        self._outbox.put(parcel)
        self._counts.set("queue.bytes", self._outbox.size)

    def close(self, timeout: float) -> None:
        """Sends what waits, in at most ``timeout`` seconds, and ends; the rest is counted."""
        self._deadline = time.monotonic() + timeout
        self._outbox.close()
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout + 0.5)
        while (parcel := self._outbox.take(0)) is not None:
            self._drop(parcel, "closed")

    def _run(self) -> None:
        while not self._closing.is_set() or time.monotonic() < self._deadline:
            parcel = self._outbox.take(_IDLE_S)
            self._counts.set("queue.bytes", self._outbox.size)
            if parcel is None:
                if self._closing.is_set():
                    break
                continue
            try:
                with suppress_instrumentation():  # where urllib3 is traced, our own calls are not
                    self._deliver(parcel)
            except Exception:
                # A defect here must not end the sending of everything that comes after.
                self._drop(parcel, "defect")
                logger.exception("a parcel of %d %s could not be sent", parcel.items, parcel.kind)
            self.cpu_ns = time.thread_time_ns()
        for way in self._ways.values():
            way.close()

    def _deliver(self, parcel: Parcel) -> None:
        way = self._ways[parcel.signal]
        for number, request in enumerate(parcel.requests):
            outcome = self._tried(lambda r=request: way.send(r, self._left()))
            if outcome.fate == "taken":
                if outcome.rejected:
                    self._counts.add(f"{parcel.kind}.rejected", outcome.rejected)
                if outcome.reason or outcome.message:
                    self._say(outcome, f"{outcome.rejected} items of a request were not taken")
                continue
            # Without this part the step is in pieces; what was sent of it can't be called back.
            self._drop(parcel, outcome.reason)
            what = f"{parcel.items} items ({parcel.kind}) are lost at request {number + 1}"
            self._say(outcome, f"{what} of {len(parcel.requests)}")
            return
        self._counts.add(f"{parcel.kind}.sent", parcel.items)

    def _tried(self, send: Callable[[], Outcome]) -> Outcome:
        """Sends until it is taken, refused for good, or too late."""
        until = min(time.monotonic() + self._give_up, self._deadline)
        while True:
            outcome = send()
            if outcome.fate != "later":
                self._wait = self._first_wait
                return outcome
            self._counts.add("requests.again", reason=outcome.reason)
            self._say(outcome, "sent again")
            pause = max(outcome.delay, self._wait * self._random.uniform(0.5, 1.0))
            self._wait = min(2 * self._wait, _MOST_WAIT_S)
            until = min(until, self._deadline)
            if time.monotonic() + pause >= until and not self._last_moment(until):
                return outcome
            if self._closing.is_set():
                pause = min(pause, 0.1)  # the process ends: there is no later
                time.sleep(pause)
            else:
                self._closing.wait(pause)

    def _last_moment(self, until: float) -> bool:
        """Whether, at the end, there is time for one more try."""
        return self._closing.is_set() and time.monotonic() + 0.1 < until

    def _left(self) -> float:
        return max(0.05, self._deadline - time.monotonic())

    def _drop(self, parcel: Parcel, reason: str) -> None:
        self._counts.add(f"{parcel.kind}.dropped", parcel.items, reason)

    def _say(self, outcome: Outcome, what: str) -> None:
        text = f"{outcome.message!r}" if outcome.message else "no message"
        self._counts.say(logger, outcome.reason, "export: %s: %s, %s", what, outcome.reason, text)
