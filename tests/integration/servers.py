"""Real servers for the integration tests: started, watched, killed, restarted, never left behind.

Everything listens on free ports of loopback. When a test fails, pytest shows what they said.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIG = Path(__file__).parents[2] / "collector-config"
CACHE = Path(
    os.environ.get("KAT_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kat-otel"
)
DEADLINE_S = 60.0
WHOLE = {
    "traces": {
        "healthy": "all",
        "healthy_interval": "0s",
        "max_spans_per_trace": 10_000,
        "whole_steps_per_incident": 100_000,
    }
}
"""Settings by which every span leaves, so that the sink can say which did not."""
_OTHERS = ("health", "prometheus", "control", "debug")
KAT = [sys.executable, "-m", "kat_otel"]


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on.

    From below the range that the system takes the clients' ports from: a server that is killed
    must find its port free when it comes back.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def free_endpoints(*names: str) -> dict[str, str]:
    """``host:port`` for each name."""
    return {n: f"127.0.0.1:{p}" for n, p in zip(names, free_ports(len(names)), strict=True)}


def binary(name: str) -> str:
    """The path of a server that ``make collector`` builds."""
    path = CACHE / "bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not built: make collector")
    return str(path)


def get(url: str) -> Any:
    """The answer of an HTTP server, parsed if it is JSON; an error's body, too."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            body = response.read()
    except urllib.error.HTTPError as error:
        body = error.read()
        if error.code not in {200, 503}:
            raise
    return json.loads(body) if body[:1] in (b"{", b"[") else body.decode()


@dataclass
class Server:
    """One process and what it takes to start it again."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes]
    may_end: bool = False

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def kill(self) -> None:
        """kill -9: nothing is finished, nothing is written."""
        self.may_end = True
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM; returns the exit code."""
        self.may_end = True
        self.process.terminate()
        return self.process.wait(timeout)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@dataclass
class Kat(Server):
    """A ``kat process`` with its health endpoint."""

    endpoint: str = ""
    http_endpoint: str = ""
    health: str = ""

    def books(self) -> Books:
        return Books.read(self.health)


@dataclass(frozen=True)
class Books:
    """What a ``kat process`` says became of the spans since it was started."""

    spans: Mapping[str, int]
    pending: int
    events: Mapping[str, int]
    healthy: bool

    @staticmethod
    def read(health: str) -> Books:
        state = get(f"http://{health}/healthz")
        return Books(state["spans"], state["pending"], state.get("events", {}), state["healthy"])

    def total(self, outcome: str) -> int:
        """Spans of an outcome, over all its reasons."""
        keys = (key for key in self.spans if key.partition(":")[0] == outcome)
        return sum(self.spans[key] for key in keys)

    @property
    def repeated(self) -> int:
        return self.spans.get("dropped:repeated", 0)

    @property
    def lost(self) -> int:
        """Dropped, but not because they had been there before."""
        return self.total("dropped") - self.repeated

    @property
    def taken(self) -> int:
        """Spans that this process owed a fate: acknowledged by it, or found in its log."""
        return self.total("acknowledged") + self.total("recovered")

    @property
    def unexplained(self) -> int:
        """Taken, not under way, and yet neither forwarded nor summarised nor dropped."""
        fates = self.total("forwarded") + self.total("summarised") + self.total("dropped")
        return self.taken - fates - self.pending

    def __str__(self) -> str:
        shown = ", ".join(f"{key} {number:,}" for key, number in sorted(self.spans.items()))
        return f"{shown}, pending {self.pending:,}, unexplained {self.unexplained:,}"


@dataclass
class Servers:
    """All processes of a test."""

    folder: Path
    running: list[Server] = field(default_factory=list)

    @staticmethod
    def endpoint() -> str:
        """``host:port`` that nobody listens on."""
        return f"127.0.0.1:{free_ports(1)[0]}"

    def start(self, name: str, command: list[str], **environment: str) -> Server:
        return self._start(Server, name, command, environment)

    def _start(
        self, kind: type[Any], name: str, command: list[str], environment: dict[str, str]
    ) -> Any:
        log = self.folder / f"{name}.log"
        process = self._popen(command, environment, log)
        server = kind(name, command, environment, log, process)
        self.running.append(server)
        return server

    @staticmethod
    def _popen(
        command: list[str], environment: dict[str, str], log: Path
    ) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(
                command, env=os.environ | environment, stdout=out, stderr=subprocess.STDOUT
            )

    def restart(self, server: Server) -> None:
        """Starts an ended server again, with what it was started with."""
        assert server.process.poll() is not None, f"{server.name} is running"
        server.process = self._popen(server.command, server.environment, server.log)
        server.may_end = False

    def collector(
        self,
        name: str,
        config: str | Path | list[str | Path],
        *,
        before: Sequence[str] = (),
        program: str = "otelcol-kat",
        **environment: str,
    ) -> Server:
        """Starts a collector and waits until it is healthy.

        Args:
            config: files, those without a folder from ``collector-config``.
            program: which of the collectors that ``make collector`` builds.
            before: what its command begins with: a wrapper that runs the rest.
            environment: on top of free ports and a state folder of its own.
        """
        server = self.start(
            name,
            [*before, binary(program), *_config_arguments(config)],
            **(self._collector_environment(name) | environment),
        )
        self.until(f"{name}'s health", lambda: self.collector_is_up(server))
        return server

    def gateway(self, kat: Kat, *, endpoint: str, back: str, traces: str) -> Server:
        """Starts ``gateway.yaml`` around a processor.

        Args:
            endpoint: where it takes OTLP over gRPC.
            back: where ``kat`` gives back what it has judged.
            traces: the backend that gets the traces.
        """
        return self.collector(
            "gateway",
            "gateway.yaml",
            KAT_COLLECTOR_GRPC_ENDPOINT=endpoint,
            KAT_COLLECTOR_HTTP_ENDPOINT=self.endpoint(),
            KAT_PROCESS_ENDPOINT=kat.endpoint,
            KAT_RETURN_ENDPOINT=back,
            KAT_JAEGER_ENDPOINT=traces,
            KAT_PROMETHEUS_ENDPOINT=self.endpoint(),
        )

    def _collector_environment(self, name: str) -> dict[str, str]:
        ports = free_ports(2)
        return {
            "KAT_COLLECTOR_HEALTH_ENDPOINT": f"127.0.0.1:{ports[0]}",
            "KAT_COLLECTOR_METRICS_PORT": str(ports[1]),
            "KAT_COLLECTOR_STATE": str(self.folder / name),
            "KAT_COLLECTOR_LOG_LEVEL": "warn",
        }

    @staticmethod
    def collector_is_up(server: Server) -> bool:
        endpoint = server.environment["KAT_COLLECTOR_HEALTH_ENDPOINT"]
        return "Server available" in str(get(f"http://{endpoint}"))

    def kat(self, name: str, exporter: str, *, before: Sequence[str] = (), **settings: Any) -> Kat:
        """Starts a ``kat process`` with its log on disk and waits until it receives.

        Args:
            exporter: ``host:port`` that gets the output.
            before: what its command begins with: a wrapper that runs the rest.
            settings: sections of its configuration, on top of ports and folders.
        """
        # All of them named: "where it is free" may be taken a moment later by a test beside this.
        ports = free_endpoints("grpc", "http", "health", "prometheus", "control", "debug")
        sections: dict[str, Any] = {
            "receiver": {"endpoint": ports["grpc"], "http": {"endpoint": ports["http"]}},
            "wal": {"directory": str(self.folder / f"{name}-wal")},
            "exporter": {"endpoint": exporter, "retry": {"max_interval": "1s"}},
            **{name: {"endpoint": ports[name]} for name in _OTHERS},
            "metrics": {"interval": "1s"},
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(_merged(sections, settings)))
        kat: Kat = self._start(Kat, name, [*before, *KAT, "process", "--config", str(file)], {})
        kat.endpoint, kat.http_endpoint, kat.health = ports["grpc"], ports["http"], ports["health"]
        # The very first start compiles, for which a loaded machine may need minutes.
        self.until(f"{name}'s health", lambda: kat.books().healthy, within=180)
        return kat

    def until(self, what: str, attempt: Callable[[], Any], within: float = DEADLINE_S) -> Any:
        """Returns what ``attempt`` returns as soon as it is true; others offer no event."""
        give_up = time.monotonic() + within
        said: object = "nothing yet"
        while time.monotonic() < give_up:
            self.check()
            try:
                if found := attempt():
                    return found
                said = found
            except (OSError, ValueError, http.client.HTTPException) as error:  # not up yet
                said = error
            time.sleep(0.1)
        raise AssertionError(f"{what}: not within {within:.0f} s, last: {said}")

    def check(self) -> None:
        for server in self.running:
            code = server.process.poll()
            if code is not None and not server.may_end:
                raise AssertionError(
                    f"{server.name} ended by itself with {code}:\n{server.said()[-3000:]}"
                )

    def stop(self) -> None:
        # The processors first: they have something to say until the end, and wait for who takes it.
        kats = [server for server in self.running if isinstance(server, Kat)]
        _end(kats)
        _end([server for server in self.running if server not in kats])


def _end(servers: Sequence[Server]) -> None:
    for server in servers:
        if server.process.poll() is None:
            server.process.terminate()
    for server in servers:
        try:
            server.process.wait(15)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


def _config_arguments(config: str | Path | list[str | Path]) -> list[str]:
    files = config if isinstance(config, list) else [config]
    return [part for file in files for part in ("--config", str(CONFIG / file))]


def _merged(base: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in more.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merged(old, value) if both else value
    return merged
