"""The ports for those who operate the processor: health, metrics, debug page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kat_otel.config import Config, DebugConfig, HealthConfig, PrometheusConfig
from kat_otel.processor.auth import Authenticator
from kat_otel.processor.conditions import Conditions
from kat_otel.processor.debug_page import debug_app
from kat_otel.processor.health import health_app
from kat_otel.processor.http import HttpServer
from kat_otel.processor.incident_pages import IncidentPages
from kat_otel.processor.live_view import LiveView
from kat_otel.processor.prometheus import metrics_app, registry_of
from kat_otel.processor.recent import Recent
from kat_otel.telemetry import Telemetry

__all__ = ["PortName", "Ports"]

PortName = Literal["health", "prometheus", "debug"]

_MAX_BODY: Final = 4_096  # nobody posts here
_MAX_CONNECTIONS: Final = 64


class Ports:
    """Those of the three that the settings name.

    Args:
        config: returns the settings in force; ports and certificates are those at the start.
        telemetry: what they show.
        recent: the last steps, for the debug page.
        live: what must hold or the process should be restarted.
        ready: what must hold or it should get no requests.
        view: what the processor sees now; made of the others if None, without what operators say.
        pages: of incidents; None serves none.

    Raises:
        ConfigError: a token file cannot be read.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        telemetry: Telemetry,
        recent: Recent,
        *,
        live: Conditions,
        ready: Conditions,
        view: LiveView | None = None,
        pages: IncidentPages | None = None,
    ) -> None:
        now = config()
        view = view or LiveView(recent, ready)
        self._servers: dict[PortName, HttpServer] = {}
        self._guards: dict[PortName, _Guard] = {}
        self._add("health", now.health, health_app(live, ready, telemetry.books))
        registry = registry_of(telemetry, recent, view)
        self._add("prometheus", now.prometheus, metrics_app(registry))
        self._add("debug", now.debug, debug_app(telemetry, recent, view, config, pages))

    def _add(
        self, name: PortName, config: HealthConfig | PrometheusConfig | DebugConfig, app: ASGIApp
    ) -> None:
        if config.endpoint is None:
            return
        guard = self._guards[name] = _Guard(app, Authenticator(config.auth, f"{name}.auth"))
        self._servers[name] = HttpServer(
            f"kat-{name}",
            config.endpoint,
            guard,
            config.tls,
            key=name,
            max_body=_MAX_BODY,
            max_connections=_MAX_CONNECTIONS,
        )

    def start(self) -> None:
        """Listens and serves.

        Raises:
            ConfigError: a port or certificate cannot be used; none of them listens then.
        """
        try:
            for server in self._servers.values():
                server.start()
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 2.0) -> None:
        """Stops answering."""
        for server in self._servers.values():
            server.stop(timeout)

    def port(self, name: PortName) -> int | None:
        """Returns the number of a port; None if the settings do not name it."""
        server = self._servers.get(name)
        return None if server is None else server.port

    def reload(self, config: Config) -> None:
        """Takes new tokens; who shows an old one is turned away from now on.

        Raises:
            ConfigError: a token file cannot be read; all old tokens stay.
        """
        sections = {"health": config.health, "prometheus": config.prometheus, "debug": config.debug}
        fresh = {name: Authenticator(sections[name].auth, f"{name}.auth") for name in self._guards}
        for name, guard in self._guards.items():
            guard.authenticator = fresh[name]


class _Guard:
    """Lets in who shows a token."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app = app
        self.authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if self.authenticator.allows(Headers(scope=scope).get("authorization")):
            await self._app(scope, receive, send)
            return
        refusal = PlainTextResponse(
            "the authorization header has no known bearer token\n",
            401,
            headers={"WWW-Authenticate": "Bearer"},
        )
        await refusal(scope, receive, send)
