"""``GET /healthz`` for supervisors: 200 while spans are taken and judged, else 503."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kat_otel.errors import ConfigError

__all__ = ["HealthServer"]


class HealthServer:
    """A small HTTP server.

    Args:
        endpoint: ``host:port``; port 0 picks a free one.
        state: returns whether all is well and what to show.

    Raises:
        ConfigError: the endpoint cannot be bound.
    """

    def __init__(
        self, endpoint: str, state: Callable[[], tuple[bool, Mapping[str, object]]]
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answers one request."""
                if self.path.partition("?")[0] not in ("/", "/healthz"):
                    self.send_error(HTTPStatus.NOT_FOUND)
                    return
                healthy, shown = state()
                body = json.dumps({"healthy": healthy, **shown}).encode()
                self.send_response(HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
                """Says nothing: probes come every few seconds."""

        host, _, port = endpoint.rpartition(":")
        try:
            self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
        except OSError as error:
            raise ConfigError(
                f"health.endpoint {endpoint}: cannot listen there ({error})"
            ) from error
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="kat-health", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stops answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
