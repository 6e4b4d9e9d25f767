"""``GET /healthz`` and ``GET /readyz`` for supervisors: 200 if all conditions hold, else 503.

*Live* means that a restart would not help: the judging thread runs. *Ready* means that requests
are taken. A backend that is away makes neither false: the log takes what arrives, and a fleet of
processors that all leave their load balancer would turn one outage into two.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kat_otel.processor.conditions import Condition, Conditions
from kat_otel.telemetry import Books

__all__ = ["health_app"]


def health_app(live: Conditions, ready: Conditions, books: Books) -> Starlette:
    """Returns the web application.

    Args:
        live: what must hold or the process should be restarted.
        ready: what must hold or it should get no requests.
        books: shown beside the conditions.
    """

    def healthz(request: Request) -> JSONResponse:
        del request
        return _answer("healthy", live(), books)

    def readyz(request: Request) -> JSONResponse:
        del request
        return _answer("ready", ready(), books)

    routes = [Route("/", healthz), Route("/healthz", healthz), Route("/readyz", readyz)]
    return Starlette(routes=routes)


def _answer(word: str, conditions: Sequence[Condition], books: Books) -> JSONResponse:
    well = all(condition.ok for condition in conditions)
    balance = books.balance()
    body = {
        word: well,
        "conditions": {c.name: {"ok": c.ok, "detail": c.detail} for c in conditions},
        "spans": dict(balance.counts),
        "pending": balance.pending,
        "events": books.marks(),
        "given_up": {f"{signal}: {reason}": n for (signal, reason), n in books.given_up().items()},
        "rejected": books.rejected(),
    }
    status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse(body, status, headers={"Cache-Control": "no-store"})
