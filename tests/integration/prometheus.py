"""A real Prometheus that scrapes, and what it answers; and a page of an engine's metrics."""

from __future__ import annotations

import shutil
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest
import yaml
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from tests.integration.servers import Servers, get


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus that scrapes every second, with exemplars."""

    endpoint: str

    @staticmethod
    def start(servers: Servers, targets: Mapping[str, Sequence[str]]) -> Prometheus:
        """Starts it.

        Args:
            targets: ``host:port`` of each job.
        """
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("prometheus not found: apt-get install --no-install-recommends prometheus")
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(where)}]}
                for job, where in targets.items()
            ],
        }
        file = servers.folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        at = servers.endpoint()
        servers.start(
            "prometheus",
            [
                program,
                f"--config.file={file}",
                f"--storage.tsdb.path={servers.folder / 'tsdb'}",
                f"--web.listen-address={at}",
                "--enable-feature=exemplar-storage",
            ],
        )
        servers.until("Prometheus", lambda: "Ready" in str(get(f"http://{at}/-/ready")))
        return Prometheus(at)

    def now(self, expression: str, at: float) -> list[dict[str, Any]]:
        """Returns the series of an expression at a time, Unix s."""
        return self._ask("query", query=expression, time=at)["result"]

    def over_time(
        self, expression: str, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        """Returns the series of an expression over a time, Unix s."""
        return self._ask("query_range", query=expression, start=start, end=end, step=step)["result"]

    def exemplars(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """Returns the single observations behind the series of an expression."""
        return self._ask("query_exemplars", query=expression, start=start, end=end)

    def label_values(self, label: str, series: str) -> list[str]:
        """Returns the values of a label that some series have."""
        return self._ask(f"label/{label}/values", **{"match[]": series})

    def _ask(self, what: str, **parameters: Any) -> Any:
        answer = get(f"http://{self.endpoint}/api/v1/{what}?{urllib.parse.urlencode(parameters)}")
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]


class EnginePage:
    """A stand-in for the /metrics of vLLM and SGLang, which cannot run here: a context manager.

    It has their histograms of the first token and the time between tokens, with their names, their
    labels and numbers of its own.

    Args:
        histograms: names, and the labels beside the engine's own.
    """

    def __init__(self, histograms: Mapping[str, Sequence[str]]) -> None:
        registry = CollectorRegistry()
        self._histograms = [
            Histogram(name, "A stand-in.", [*labels, "engine"], registry=registry)
            for name, labels in histograms.items()
        ]

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = generate_latest(registry)
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def observe(self, seconds: float, model: str) -> None:
        """Counts a request of a model in all histograms."""
        for histogram in self._histograms:
            histogram.labels(model_name=model, engine="0").observe(seconds)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
