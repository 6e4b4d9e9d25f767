"""The control channel, worker's side: asks what to send, from a thread of its own.

OpAMP over HTTP: the worker polls, the server cannot call. What it may say is which steps to send
and how much (:mod:`kat_otel.capture`); every answer is checked, and one that makes no sense
changes nothing. Of several processors behind one name it asks until one judges its instance, and
stays with that one.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.instrumentation.utils import suppress_instrumentation

from kat_otel.capture import CAPABILITY, ORDERS, POLL, Orders, Poll
from kat_otel.errors import DecodeError, UnreachableError
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.places import Places
from kat_otel.instrumentation.settings import Settings
from kat_otel.opamp import AgentToServer, CustomMessage, ServerToAgent

__all__ = ["Control"]

logger: Final = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5.0
_LEAST_POLL_S: Final = 0.02
_MOST_POLL_S: Final = 300.0
_FIRST_WAIT_S: Final = 1.0
_MOST_WAIT_S: Final = 60.0
_ORDERS_HOLD_S: Final = 60.0
"""How long orders hold when the server is gone: then the settings are what holds."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_MAX_TOKEN: Final = 8_192


class Control:
    """Polls, and keeps the last orders.

    Args:
        settings: where to ask, with which token and authority.
        counts: polls by outcome.
        first_wait: pause after a first failure, seconds; it doubles up to a minute.
        orders_hold: how long orders hold without an answer, seconds; at least ten polls.
        places: whom it asks; those of the settings if None.
    """

    def __init__(
        self,
        settings: Settings,
        counts: Counts,
        *,
        first_wait: float = _FIRST_WAIT_S,
        orders_hold: float = _ORDERS_HOLD_S,
        places: Places | None = None,
    ) -> None:
        self._places = places or Places(settings.control_endpoint, ca_file=settings.control_ca_file)
        self._token_file = settings.control_token_file
        url = urlsplit(settings.control_endpoint)
        if self._token_file and url.scheme != "https" and url.hostname not in _LOOPBACK:
            logger.warning(
                "the token of the control channel goes to %s in plain text: give an https address",
                url.hostname,
            )
        self._counts = counts
        self._first_wait = self._wait = first_wait
        self._orders_hold = orders_hold
        self._uid = uuid.uuid4().bytes
        self._sent = 0
        self._poll: Poll | None = None
        self._asked_at: int | None = None  # the step of the last poll that was answered
        self._orders: tuple[Orders, float] | None = None
        self._begun = threading.Event()  # somebody is known to ask for
        self._closing = threading.Event()
        self._random = random.Random()  # noqa: S311 - spreads polls, guards nothing
        self.on_orders: Callable[[], None] = _nothing
        """Called by the polling thread when orders have come."""
        self._thread = threading.Thread(target=self._run, name="kat-control", daemon=True)

    @property
    def orders(self) -> Orders | None:
        """The last orders; None if there are none that still hold."""
        known = self._orders
        if known is None:
            return None
        orders, came = known
        holds = max(self._orders_hold, 10 * orders.poll_seconds)
        return orders if time.monotonic() - came <= holds else None

    def start(self) -> None:
        """Begins to poll, as soon as it is known for whom."""
        self._thread.start()

    def at(self, poll: Poll) -> None:
        """Says who the worker is, the step it is at and the oldest that it still has."""
        self._poll = poll
        self._begun.set()

    def close(self) -> None:
        """Polls no more."""
        self._closing.set()
        self._begun.set()
        if self._thread.is_alive():
            self._thread.join(0.2)  # it may wait for an answer: nobody waits for that

    def _run(self) -> None:
        self._begun.wait()
        while not self._closing.is_set():
            try:
                with suppress_instrumentation():  # where urllib3 is traced, our own calls are not
                    pause = self._ask()
            except Exception:  # noqa: BLE001 - logged by `say`, with its traceback
                # A defect here must not end the polls: a kill switch may be among them.
                self._counts.add("polls", reason="defect")
                self._counts.say(logger, "poll defect", "control: a poll failed", exc_info=True)
                pause = self._later(0.0)
            self._closing.wait(pause)
        self._places.close()

    def _ask(self) -> float:
        """Polls once; returns how long to wait for the next."""
        poll = self._poll
        if poll is None:
            return _FIRST_WAIT_S
        self._sent += 1
        question = CustomMessage(CAPABILITY, POLL, poll.encode())
        message = AgentToServer(self._uid, self._sent, (CAPABILITY,), question)
        headers = {"content-type": "application/x-protobuf"}
        try:
            if self._token_file:
                headers["authorization"] = f"Bearer {self._token()}"
            answer = self._places.client.post([message.encode()], headers, _TIMEOUT_S)
        except (OSError, UnreachableError) as error:
            reason = "unreachable" if isinstance(error, UnreachableError) else "token"
            return self._failed(reason, str(error))
        if answer.status != 200:
            return self._failed(
                f"http_{answer.status}", answer.body[:200].decode("utf-8", "replace")
            )
        try:
            said = ServerToAgent.decode(answer.body)
            if said.instance_uid != self._uid:
                raise DecodeError("the answer is for another process")
            if said.error:
                pause = min(said.retry_after_ns / 1e9, _MOST_POLL_S)
                return self._failed("refused", said.error_message[:200], pause)
            custom = said.custom_message
            if custom is None or (custom.capability, custom.type) != (CAPABILITY, ORDERS):
                raise DecodeError("the server has no orders: is it kat process?")
            orders = Orders.decode(custom.data)
        except DecodeError as error:
            return self._failed("malformed", str(error)[:200])
        self._counts.add("polls", reason="answered")
        self._wait = self._first_wait
        self._orders = orders, time.monotonic()
        # A worker that makes no steps is judged nowhere: it stays where it is.
        stepped = self._asked_at is not None and poll.step > self._asked_at
        self._asked_at = poll.step
        if stepped and not orders.judged_here:
            self._places.go_on()
        self.on_orders()
        # Ranks that were started together must not poll together.
        pause = min(max(orders.poll_seconds, _LEAST_POLL_S), _MOST_POLL_S)
        return pause * self._random.uniform(0.9, 1.0)

    def _token(self) -> str:
        """Returns the first line of the file: read each time, since tokens are renewed in place.

        Raises:
            OSError: it cannot be read, or holds no token.
        """
        with Path(self._token_file).open(encoding="utf-8", errors="replace") as file:
            token = file.readline(_MAX_TOKEN).strip()
        if not token or not token.isascii() or not token.isprintable():
            raise OSError(f"{self._token_file} holds no token in its first line")
        return token

    def _failed(self, reason: str, message: str, least: float = 0.0) -> float:
        self._places.go_on()
        self._counts.add("polls", reason=reason)
        self._counts.say(logger, reason, "control: %s: %r; asked again later", reason, message)
        return self._later(least)

    def _later(self, least: float) -> float:
        pause = max(least, self._wait * self._random.uniform(0.5, 1.0))
        self._wait = min(2 * self._wait, _MOST_WAIT_S)
        return pause


def _nothing() -> None:
    pass
