"""``GET /incidents/<id>``: the one-page report on an incident, made when somebody asks for it.

One page is made at a time, in the thread of its request: the judging thread hands over what there
is (:mod:`kat_otel.processor.exhibits`) and is never waited for, nor made to wait. A page that was
made a moment ago is handed out again. What draws it is handed in by whoever starts the processor.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from kat_otel.processor.exhibits import Exhibit, Exhibits
from kat_otel.processor.known_incidents import KnownIncidents, UnknownIncidentError
from kat_otel.processor.sentence import summary_of
from kat_otel.spans import SpanTable
from kat_otel.verdict import Report, to_json

__all__ = ["IncidentPages", "PageMaker"]

_FRESH_S: Final = 5.0
"""A page is not made anew more often: an incident of each step would change it with each."""
_REST: Final = 4.0
"""Drawing rests for so many times as long as it took: it shares the interpreter with judging, which
whoever asks for page after page slows by a fifth at most."""
_MADE: Final = 4
"""Pages that are kept, of about a megabyte each."""
_HEADERS: Final = {
    # The rest of the policy is in the page, which names its own script by a hash.
    "Content-Security-Policy": "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class PageMaker(Protocol):
    """Makes the page; ``kat_otel.report.incident_page.incident_page`` is one."""

    def __call__(
        self, report: Report, spans: SpanTable | None, healthy: SpanTable | None, missing: str, /
    ) -> str:
        """Returns HTML.

        Args:
            report: on one incident.
            spans: the step that it is drawn in, None if there is none.
            healthy: an earlier step of the same ranks in which nothing was wrong, or None.
            missing: why there are no spans.
        """
        ...


class IncidentPages:
    """Answers for the incidents of which there is something to show; from any thread.

    Args:
        exhibits: what there is.
        known: all incidents that can be spoken of.
        make: makes a page; None if whoever started the processor wants none.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        exhibits: Exhibits,
        known: KnownIncidents,
        make: PageMaker | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exhibits = exhibits
        self._known = known
        self._make = make
        self._clock = clock
        self._making = threading.Lock()
        self._rested = -math.inf
        self._made: OrderedDict[str, tuple[Exhibit, float, str]] = OrderedDict()

    def routes(self) -> list[Route]:
        """Returns what the debug port answers."""
        return [
            Route("/incidents/{id}.json", self._data),
            Route("/incidents/{id}", self._page),
        ]

    def listed(self) -> list[dict[str, Any]]:
        """Returns the incidents that have a page, for the list of them."""
        if self._make is None:
            return []
        return [
            {
                "id": one.incident.id,
                "instance": one.instance,
                "status": one.incident.status,
                "sentence": summary_of(one.incident),
                "last_seen_ns": one.incident.last_seen,
                "drawn": one.spans is not None,
            }
            for one in self._exhibits.all()
        ]

    def _page(self, request: Request) -> Response:
        found = self._found(request.path_params["id"])
        if isinstance(found, str) or self._make is None:
            return _problem(str(found))
        return HTMLResponse(self._html(found, self._make), headers=_HEADERS)

    def _data(self, request: Request) -> Response:
        found = self._found(request.path_params["id"])
        if isinstance(found, str):
            return _problem(found)
        return Response(to_json(found.report), media_type="application/json", headers=_HEADERS)

    def _found(self, said: str) -> Exhibit | str:
        """Returns what there is of an incident, or why there is nothing."""
        if self._make is None:
            return "this processor makes no reports: kat process does"
        found = self._exhibits.find(said)
        if found is not None:
            return found
        try:
            meant = self._known.find(said).incident.id
        except UnknownIncidentError as error:
            return f"{error}. /debug/steps lists the incidents that have a report"
        return self._exhibits.find(meant) or (
            f"incident {meant} is known, but not what its report is made from: that is kept of the "
            "incidents seen last (debug.reports). /debug/steps lists them"
        )

    def _html(self, exhibit: Exhibit, make: PageMaker) -> str:
        name = exhibit.incident.id
        with self._making:
            made = self._made.get(name)
            if made is not None and (made[0] is exhibit or self._clock() - made[1] < _FRESH_S):
                self._made.move_to_end(name)
                return made[2]
            time.sleep(max(0.0, self._rested - self._clock()))
            begin = self._clock()
            html = make(exhibit.report, *_tables(exhibit), exhibit.missing)
            self._rested = self._clock() + _REST * (self._clock() - begin)
            self._made[name] = exhibit, self._clock(), html
            while len(self._made) > _MADE:
                self._made.popitem(last=False)
            return html


def _tables(exhibit: Exhibit) -> tuple[SpanTable | None, SpanTable | None]:
    spans, healthy = exhibit.spans, exhibit.healthy
    return spans and spans.table, healthy and healthy.table


def _problem(text: str) -> Response:
    return PlainTextResponse(f"{text}\n", HTTPStatus.NOT_FOUND, headers=_HEADERS)
