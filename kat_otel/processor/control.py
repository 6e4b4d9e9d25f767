"""The control channel: workers poll, the answer says how much they send and which steps whole.

``POST /v1/opamp`` with OpAMP's AgentToServer; the question and the answer are custom messages of
the capability ``io.opentelemetry.kat.capture`` (:mod:`kat_otel.capture`). The server never calls
a worker, and nothing but the steps to send can be asked of one.

``POST /v1/captures`` is the operator's: ``kat capture`` asks for the steps of an instance as a
finding would, within the same bounds. Feedback and silences are operators' too: see ``desk.py``.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from kat_otel import opamp
from kat_otel.capture import CAPABILITY, ORDERS, POLL, Capture, Orders, Poll
from kat_otel.config import Config
from kat_otel.errors import ConfigError, DecodeError
from kat_otel.opamp import AgentToServer, CustomMessage, ServerToAgent
from kat_otel.processor.assembled import AssembledStep
from kat_otel.processor.auth import Authenticator
from kat_otel.processor.captures import Captures, FullError, StrangerError
from kat_otel.processor.desk import Desk
from kat_otel.processor.http import HttpServer
from kat_otel.telemetry import Books
from kat_otel.verdict import Incident

__all__ = ["ControlServer"]

_PROTOBUF: Final = "application/x-protobuf"
_RETRY_S: Final = 30.0

logger = logging.getLogger(__name__)


class ControlServer:
    """Answers polls, and takes findings for which whole steps are wanted.

    Args:
        config: all settings; ``control`` and ``digests`` are used.
        books: counts polls and requests.
        clock: monotonic seconds.
        desk: answers operators beside; None answers none.
    """

    def __init__(
        self,
        config: Config,
        books: Books,
        clock: Callable[[], float] = time.monotonic,
        desk: Desk | None = None,
    ) -> None:
        self._config = config
        self._books = books
        self._clock = clock
        self._desk = desk
        self._lock = threading.Lock()  # the HTTP thread polls, the judging thread requests
        self._captures = Captures(config.digests, config.control.poll_interval)
        self._authenticator = Authenticator(None)
        self._server: HttpServer | None = None

    @property
    def port(self) -> int:
        """The port that answers polls; 0 before the start."""
        return self._server.port if self._server else 0

    def start(self) -> None:
        """Listens.

        Raises:
            ConfigError: the endpoint, a certificate or the token cannot be used.
        """
        control = self._config.control
        if control.endpoint is None:
            raise ConfigError("control.endpoint is not given: there is nowhere to listen")
        self._authenticator = Authenticator(control.auth, "control.auth")
        routes: list[BaseRoute] = [
            Route("/v1/opamp", self._answer, methods=["POST"]),
            Route("/v1/captures", self._operator, methods=["POST"]),
        ]
        if self._desk is not None:
            routes.append(Mount("/", self._known(Router(self._desk.routes()))))
        app = Starlette(routes=routes)
        self._server = HttpServer(
            "control",
            control.endpoint,
            app,
            control.tls,
            key="control",
            max_body=opamp.MAX_MESSAGE_BYTES,
        )
        self._server.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Stops listening."""
        if self._server:
            self._server.stop(timeout)
            self._server = None

    def reload(self, config: Config) -> None:
        """Takes new settings: mode, sampling, limits and tokens; the port stays."""
        authenticator = Authenticator(config.control.auth, "control.auth")
        with self._lock:
            self._config = config
            self._captures.config = config.digests
            self._captures.poll_seconds = config.control.poll_interval
            self._authenticator = authenticator

    def found(self, step: AssembledStep, incidents: Sequence[Incident]) -> None:
        """Takes a judged step and its incidents: asks for whole ones if it had digests alone."""
        with self._lock:
            self._captures.judged(step.instance, self._clock())
        if incidents and not step.table.on_gpu.any():
            for incident in incidents:
                self.request(step.instance, step.step, incident.id)

    def request(self, instance: str, step: int, reason: str) -> bool:
        """Asks all ranks of an instance for the steps around a finding, once a reason.

        Args:
            instance: ``kat.instance.id``.
            step: where it was found.
            reason: the incident's id.

        Returns:
            Whether they are being asked now.
        """
        with self._lock:
            if self._config.control.mode != "full":
                return False
            capture = self._captures.request(instance, step, reason, self._clock())
        return self._requested(instance, capture, reason)

    def _requested(self, instance: str, capture: Capture | None, reason: str) -> bool:
        if capture is None:
            return False
        self._books.mark("captures requested")
        recorded, coming = capture.recorded, capture.next
        logger.info(
            "instance %s: asked for whole steps %d to %d and %d to %d (%s)",
            instance,
            *recorded,
            *coming,
            reason,
        )
        return True

    def _known(self, app: ASGIApp) -> ASGIApp:
        """Lets in who shows a token."""

        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            if self._authenticator.allows(Headers(scope=scope).get("authorization")):
                await app(scope, receive, send)
                return
            self._books.mark("operators unauthenticated")
            refusal = Response(status_code=401, headers={"www-authenticate": "Bearer"})
            await refusal(scope, receive, send)

        return call

    async def _answer(self, request: Request) -> Response:
        if not self._authenticator.allows(request.headers.get("authorization")):
            self._books.mark("polls unauthenticated")
            return Response(
                status_code=HTTPStatus.UNAUTHORIZED, headers={"www-authenticate": "Bearer"}
            )
        if request.headers.get("content-type", "").partition(";")[0].strip() != _PROTOBUF:
            return Response(status_code=HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        body = await _body(request)
        if body is None:
            return Response(status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            message = AgentToServer.decode(body)
        except DecodeError as error:
            self._books.mark("polls malformed")
            return Response(str(error), status_code=HTTPStatus.BAD_REQUEST)
        answer = self._orders(message)
        return Response(answer.encode(), media_type=_PROTOBUF)

    async def _operator(self, request: Request) -> Response:
        """Asks for whole steps in an operator's name, and says which, or why not."""
        if not self._authenticator.allows(request.headers.get("authorization")):
            self._books.mark("polls unauthenticated")
            return Response(
                status_code=HTTPStatus.UNAUTHORIZED, headers={"www-authenticate": "Bearer"}
            )
        body = await _body(request)
        if body is None:
            return Response(status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            said: Any = json.loads(body)
            name = str(said["instance"])
            who = str(said.get("who", "an operator"))[:64]
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return _problem(HTTPStatus.BAD_REQUEST, 'the body is not {"instance": ...}')
        # Every request is a reason of its own: an operator may ask twice.
        reason = f"{who} {uuid.uuid4().hex[:8]}"
        with self._lock:
            known = self._captures.instances
            step = self._captures.latest(name)
            mode = self._config.control.mode
            capture = None
            if mode == "full" and step is not None:
                capture = self._captures.request(name, step, reason, self._clock())
        if mode != "full":
            return _problem(HTTPStatus.CONFLICT, f"control.mode is {mode}: no whole steps are sent")
        if step is None:
            heard = ", ".join(known[-8:]) or "none"
            return _problem(
                HTTPStatus.NOT_FOUND, f"no worker of {name[:128]} polls; heard of: {heard}"
            )
        if capture is None:
            return _problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "not now: nobody polled just now, too many requests are under way, or "
                "digests.captures_per_hour is used up",
            )
        self._requested(name, capture, reason)
        return JSONResponse({"id": capture.id, "recorded": capture.recorded, "next": capture.next})

    def _orders(self, message: AgentToServer) -> ServerToAgent:
        uid, custom = message.instance_uid, message.custom_message
        if len(uid) != 16:
            return _refused(uid[:16], "instance_uid has not 16 bytes")
        if custom is None or (custom.capability, custom.type) != (CAPABILITY, POLL):
            # A plain OpAMP agent: it learns what this server is for, and nothing else.
            return ServerToAgent(uid, custom_capabilities=(CAPABILITY,))
        try:
            poll = Poll.decode(custom.data)
            with self._lock:
                control, now = self._config.control, self._clock()
                captures = self._captures.poll(uid, poll, now)
                judged_here = self._captures.judges(poll.instance, now)
        except (DecodeError, StrangerError) as error:
            self._books.mark("polls refused")
            return _refused(uid, str(error))
        except FullError as error:
            self._books.mark("polls refused")
            return ServerToAgent(uid, opamp.UNAVAILABLE, str(error), round(1e9 * _RETRY_S))
        self._books.mark("polls answered")
        orders = Orders(
            control.mode,
            control.sample_every,
            control.poll_interval,
            captures if control.mode == "full" else (),
            judged_here,
        )
        answer = CustomMessage(CAPABILITY, ORDERS, orders.encode())
        return ServerToAgent(uid, custom_capabilities=(CAPABILITY,), custom_message=answer)


async def _body(request: Request) -> bytes | None:
    """Returns the body; None if it is longer than any message may be."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > opamp.MAX_MESSAGE_BYTES:
            return None
    return bytes(body)


def _problem(status: HTTPStatus, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)


def _refused(uid: bytes, why: str) -> ServerToAgent:
    return ServerToAgent(uid, opamp.BAD_REQUEST, why)
