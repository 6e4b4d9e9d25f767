"""Where operators say what they think of incidents: verdicts and silences, on the control port.

``POST /v1/feedback`` takes a verdict, ``GET /v1/feedback`` hands all of them out as JSON lines.
``POST /v1/silences`` makes a silence, ``GET`` lists them, ``DELETE /v1/silences/ID`` ends one.
The port asks for its token before any of it is reached. Bodies must be ``application/json``, which
no page of another site can make a browser send.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kat_otel.operators import MAX_SILENCE_S, Feedback, Said, Silence, feedback_of
from kat_otel.processor.feedback import FeedbackBook
from kat_otel.processor.known_incidents import KnownIncidents, UnknownIncidentError
from kat_otel.processor.log_events import encode_feedback
from kat_otel.processor.silences import SilenceError, Silences
from kat_otel.telemetry import Books
from kat_otel.verdict import Component, Kind

__all__ = ["Desk", "Wanted"]

_LINES: Final = "application/x-ndjson"
_Text = Annotated[str, msgspec.Meta(max_length=256)]

logger = logging.getLogger(__name__)


class Wanted(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an operator sends to make a silence: an incident, or what is to hold of incidents.

    Attributes:
        seconds: how long it lasts.
        incident: its id, or the beginning of it.
        instance, kind, component, ranks: see :class:`~kat_otel.operators.Silence`.
        by, reason: who makes it, and why.
    """

    seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_SILENCE_S)]
    incident: _Text | None = None
    instance: Annotated[str, msgspec.Meta(max_length=1_024)] | None = None
    kind: Kind | None = None
    component: Component | None = None
    ranks: Annotated[tuple[int, ...], msgspec.Meta(max_length=1_024)] = ()
    by: _Text = ""
    reason: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


Body = TypeVar("Body", Said, Wanted)


class Desk:
    """Takes what operators say.

    Args:
        folder: where it is kept, beside the states of the instances; None forgets it with the
            process.
        known: the incidents that can be spoken of.
        books: counts what happened.
        send: sends a request of logs, False if there is no room.
        clock: Unix ns.

    Attributes:
        silences: those in force.
        feedback: what was said.
    """

    def __init__(
        self,
        folder: Path | None,
        known: KnownIncidents,
        books: Books,
        send: Callable[[bytes], bool] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.silences = Silences(folder and folder / "silences.jsonl", books.mark, clock)
        self.feedback = FeedbackBook(folder and folder / "feedback.jsonl", books.mark)
        self._known = known
        self._books = books
        self._send = send
        self._clock = clock

    def routes(self) -> list[Route]:
        """Returns what the control port answers beside the polls of workers."""
        return [
            Route("/v1/feedback", self._feedback, methods=["GET", "POST"]),
            Route("/v1/silences", self._silences, methods=["GET", "POST"]),
            Route("/v1/silences/{id}", self._end, methods=["DELETE"]),
        ]

    async def _feedback(self, request: Request) -> Response:
        if request.method == "POST":
            return await _taken(request, Said, self.say)
        return Response(await run_in_threadpool(self.feedback.lines), media_type=_LINES)

    async def _silences(self, request: Request) -> Response:
        if request.method == "POST":
            return await _taken(request, Wanted, self.silence)
        return _answer({"silences": await run_in_threadpool(self.silences.active)})

    async def _end(self, request: Request) -> Response:
        by = request.query_params.get("by", "")[:256]
        return await _done(lambda: self.end(request.path_params["id"], by))

    def say(self, said: Said) -> dict[str, Any]:
        """Takes a verdict; returns the incident that it is of.

        Raises:
            UnknownIncidentError: of none that is known.
            OSError: it cannot be kept.
        """
        instance, incident = self._known.find(said.incident)
        feedback = feedback_of(said, instance, incident, self._clock())
        self.feedback.add(feedback)
        self._tell(feedback, encode_feedback(feedback, incident))
        logger.info("%s calls incident %s %s", said.by or "?", incident.id, said.verdict)
        silence = self.silences.of(instance, incident)
        return {
            "incident": incident.id,
            "instance": instance,
            "kind": incident.kind,
            "component": incident.component,
            "status": incident.status,
            "silenced_until_unix_nano": None if silence is None else silence.end_unix_nano,
        }

    def silence(self, wanted: Wanted) -> dict[str, Any]:
        """Makes a silence; returns it, and the live incidents that it silences.

        Raises:
            UnknownIncidentError: of an incident that is not known.
            SilenceError: it names nothing, or both an incident and more; or there are too many.
            OSError: it cannot be kept.
        """
        asked = Silence(
            id="",
            begin_unix_nano=0,
            end_unix_nano=0,
            incident=wanted.incident,
            instance=wanted.instance,
            kind=wanted.kind,
            component=wanted.component,
            ranks=wanted.ranks,
            by=wanted.by,
            reason=wanted.reason,
        )
        if not asked.target:
            raise SilenceError("a silence names an incident, or an instance, kind, component, rank")
        if wanted.incident is not None:
            found = self._known.find(wanted.incident).incident.id
            asked = msgspec.structs.replace(asked, incident=found)
        made = self.silences.add(asked, wanted.seconds)
        live = [i.id for instance, i in self._known.live() if made.matches(instance, i)]
        return {"silence": made, "incidents": live[:64], "count": len(live)}

    def end(self, silence_id: str, by: str) -> dict[str, Any]:
        """Ends a silence; returns it.

        Raises:
            SilenceError: there is none of that id.
            OSError: the disk does not take it.
        """
        return {"silence": self.silences.end(silence_id, by)}

    def _tell(self, feedback: Feedback, event: bytes) -> None:
        # What was said is kept on disk: the event may be left out, the senders are not to wait.
        if self._send is not None and not self._send(event):
            self._books.mark("feedback events not sent")
            logger.warning("the event of feedback on %s found no room", feedback.incident_id)


async def _taken(request: Request, form: type[Body], work: Callable[[Body], Any]) -> Response:
    """Reads a body (bounded by the server) and answers with what is made of it."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return _problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json")
    try:
        said = msgspec.json.decode(await request.body(), type=form)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return _problem(HTTPStatus.BAD_REQUEST, f"the request is not understood: {error}")
    return await _done(lambda: work(said))


async def _done(work: Callable[[], Any]) -> Response:
    """Works in another thread, as the disk may take its time, and says what went wrong."""
    try:
        return _answer(await run_in_threadpool(work))
    except UnknownIncidentError as error:
        return _problem(HTTPStatus.NOT_FOUND, str(error))
    except SilenceError as error:
        return _problem(HTTPStatus.CONFLICT, str(error))
    except OSError as error:
        logger.warning("what an operator said cannot be kept: %s", error)
        return _problem(
            HTTPStatus.INSUFFICIENT_STORAGE,
            f"it cannot be kept: {error.filename or 'disk'}: {error.strerror or error}",
        )


def _answer(said: Any) -> Response:
    return Response(msgspec.json.encode(said), media_type="application/json")


def _problem(status: HTTPStatus, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)
