"""``GET /debug/steps``: the last steps and verdicts for people, ``/debug/steps.json`` as data.

``/debug/live.json`` is what goes on now alone: ``kat top`` reads it. ``/incidents/<id>`` is the
report on one incident (:mod:`kat_otel.processor.incident_pages`).

Names of instances come from workers and are untrusted: the template escapes every value, what
does not print is shown as its code, and the page may run no script and load nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from kat_otel.config import Config
from kat_otel.live import Live
from kat_otel.processor.effective import effective, effective_yaml
from kat_otel.processor.incident_pages import IncidentPages
from kat_otel.processor.live_view import LiveView
from kat_otel.processor.recent import Recent
from kat_otel.telemetry import LATENCY_BOUNDS, Books, Distribution, Telemetry

__all__ = ["debug_app"]

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_WHY: Final[dict[str, str]] = {
    "complete": "complete",
    "waited": "waited decision_wait",
    "limit": "memory limit",
    "shutdown": "stopping",
}


def debug_app(
    telemetry: Telemetry,
    recent: Recent,
    live: LiveView,
    config: Callable[[], Config],
    pages: IncidentPages | None = None,
) -> Starlette:
    """Returns the web application.

    Args:
        telemetry: counts, durations and levels.
        recent: the last steps.
        live: what goes on now.
        config: returns the settings in force.
        pages: of incidents; None serves none.
    """
    reports = pages or IncidentPages(recent.exhibits, recent.known, None)

    def page(request: Request) -> Response:
        every = request.query_params.get("refresh", "")
        refresh = min(3600, max(1, int(every))) if every.isdecimal() and len(every) < 5 else 0
        view = _view(telemetry, recent, live.read(), reports)
        html = _environment().get_template("debug.html.j2")
        drawn = {one["id"] for one in view["reports"]}
        text = html.render(view, refresh=refresh, drawn=drawn, settings=effective_yaml(config()))
        return HTMLResponse(text, headers=_HEADERS)

    def data(request: Request) -> Response:
        del request
        view = _view(telemetry, recent, live.read(), reports)
        body = msgspec.to_builtins({**view, "settings": effective(config())})
        return JSONResponse(body, headers=_HEADERS)

    def now(request: Request) -> Response:
        del request
        body = msgspec.json.encode(live.read())
        return Response(body, media_type="application/json", headers=_HEADERS)

    def home(request: Request) -> Response:
        del request
        return RedirectResponse("/debug/steps")

    routes = [
        Route("/", home),
        Route("/debug/steps", page),
        Route("/debug/steps.json", data),
        Route("/debug/live.json", now),
        *reports.routes(),
    ]
    return Starlette(routes=routes)


def _view(
    telemetry: Telemetry, recent: Recent, live: Live, reports: IncidentPages
) -> dict[str, Any]:
    balance = telemetry.books.balance()
    return {
        **msgspec.structs.asdict(live),
        "reports": reports.listed(),
        "steps": [asdict(step) for step in recent.steps()],
        "spans": dict(sorted(balance.counts.items())),
        "pending": balance.pending,
        "events": dict(sorted(telemetry.books.marks().items())),
        "undelivered": _undelivered(telemetry.books),
        "levels": dict(sorted(telemetry.gauges.read().items())),
        "durations": {
            name: {
                "count": sum(found.counts),
                "mean_s": found.total / sum(found.counts),
                "p50_below_s": _quantile(found, 0.5),
                "p99_below_s": _quantile(found, 0.99),
            }
            for name, found in telemetry.latencies.read().items()
        },
    }


def _undelivered(books: Books) -> dict[str, int]:
    given_up = {f"{signal} requests, {why}": n for (signal, why), n in books.given_up().items()}
    rejected = {f"{signal} rejected by endpoint": n for signal, n in books.rejected().items()}
    return dict(sorted((given_up | rejected).items()))


def _quantile(found: Distribution, share: float) -> float | None:
    """Returns a bound that the quantile does not exceed; None above the last bound."""
    wanted, seen = share * sum(found.counts), 0
    for bound, count in zip(LATENCY_BOUNDS, found.counts, strict=False):
        seen += count
        if seen >= wanted:
            return bound
    return None


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kat_otel.processor"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: Mapping[str, Callable[..., str]] = {
        "duration": _duration,
        "clock": _clock,
        "moment": _moment,
        "why": _why,
    }
    environment.filters.update(filters)
    return environment


def _finalize(value: Any) -> Any:
    """Shows what would move the cursor or turn the reading direction as its code."""
    if isinstance(value, Markup) or not isinstance(value, str) or value.isprintable():
        return value
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in value
    )


def _duration(seconds: float | None) -> str:
    """Returns a duration in three digits with its unit."""
    if seconds is None:
        return "–"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:,.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"


def _why(ending: str) -> str:
    return _WHY.get(ending, ending)


def _clock(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).strftime("%H:%M:%S")


def _moment(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
