"""The main job with nothing simulated: files -> collector -> kat process -> collector -> Jaeger.

Every server is the real one, on free ports of loopback, and is ended whatever happens; when
the test fails, what they said is shown.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kat_otel import semconv

pytestmark = pytest.mark.integration

CONFIG = Path(__file__).parents[2] / "collector-config"
CACHE = Path(
    os.environ.get("KAT_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kat-otel"
)
DEADLINE_S = 60.0


class Servers:
    """Processes of a test, each with a log file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, name: str, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT
            )
        self.running.append((name, process))
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def check(self) -> None:
        for name, process in self.running:
            code = process.poll()
            assert code is None, f"{name} ended by itself with {code}:\n{self.log(name)[-3000:]}"

    def stop(self) -> None:
        for _, process in reversed(self.running):
            process.terminate()
        for _, process in self.running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    servers.stop()
    for name, _ in servers.running:  # pytest shows this for failed tests only
        sys.stdout.write(f"--- {name}\n{servers.log(name)[-4000:]}\n")


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def binary(name: str) -> str:
    path = CACHE / "bin" / name
    if not path.exists():
        pytest.skip(f"{name} is not built: make collector")
    return str(path)


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:
        body = response.read()
    return json.loads(body) if body[:1] in (b"{", b"[") else body.decode()


def until(servers: Servers, what: str, attempt: Callable[[], Any]) -> Any:
    """Returns what ``attempt`` returns as soon as it is true; other processes offer no event."""
    give_up = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up:
        servers.check()
        try:
            if found := attempt():
                return found
        except (OSError, urllib.error.URLError, ValueError):
            pass  # not up yet
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {DEADLINE_S:.0f} s")


def attributes_of(holder: dict[str, Any]) -> dict[str, Any]:
    """OTLP JSON's list of pairs as a dictionary; integers are strings there."""
    found: dict[str, Any] = {}
    for pair in holder.get("attributes", []):
        ((kind, value),) = pair["value"].items()
        found[pair["key"]] = int(value) if kind == "intValue" else value
    return found


@pytest.mark.timeout(240)
def test_the_culprit_of_a_replayed_step_is_marked_in_jaeger(traces, servers, tmp_path):
    collector, jaeger = binary("otelcol-kat"), binary("jaeger")
    names = "grpc http kat back jaeger prometheus health metrics query query_grpc"
    port = dict(zip(names.split(), map(str, free_ports(10)), strict=True))
    at = {name: f"127.0.0.1:{number}" for name, number in port.items()}

    servers.start(
        "jaeger",
        [jaeger, "--config", str(CONFIG / "jaeger-memory.yaml")],
        KAT_JAEGER_ENDPOINT=at["jaeger"],
        KAT_JAEGER_QUERY_ENDPOINT=at["query"],
        KAT_JAEGER_QUERY_GRPC_ENDPOINT=at["query_grpc"],
    )
    servers.start(
        "collector",
        [collector, "--config", str(CONFIG / "kat.yaml")],
        KAT_COLLECTOR_GRPC_ENDPOINT=at["grpc"],
        KAT_COLLECTOR_HTTP_ENDPOINT=at["http"],
        KAT_PROCESS_ENDPOINT=at["kat"],
        KAT_RETURN_ENDPOINT=at["back"],
        KAT_JAEGER_ENDPOINT=at["jaeger"],
        KAT_PROMETHEUS_ENDPOINT=at["prometheus"],
        KAT_COLLECTOR_HEALTH_ENDPOINT=at["health"],
        KAT_COLLECTOR_METRICS_PORT=port["metrics"],
        KAT_COLLECTOR_STATE=str(tmp_path / "state"),
    )
    settings = tmp_path / "kat-process.yaml"
    settings.write_text(
        f"receiver: {{endpoint: '{at['kat']}'}}\n"
        f"exporter: {{endpoint: '{at['back']}'}}\n"
        "metrics: {interval: 1s}\n"
    )
    kat = [sys.executable, "-m", "kat_otel"]
    process = servers.start("kat", [*kat, "process", "--config", str(settings)])
    until(servers, "Jaeger's API", lambda: get(f"http://{at['query']}/api/v3/services") is not None)
    until(servers, "the collector's health", lambda: get(f"http://{at['health']}"))
    until(servers, "kat process", lambda: "receiving OTLP" in servers.log("kat"))

    replay_dlrm = [*kat, "replay", str(traces / "dlrm_8rank")]
    replay = subprocess.run(
        [*replay_dlrm, "--endpoint", at["grpc"], "--instance", "dlrm"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert replay.returncode == 0, replay.stderr

    # The log events name the trace.
    incidents_file = tmp_path / "state" / "incidents.jsonl"
    record = until(servers, "the incident's log event", lambda: first_record(incidents_file))
    assert record["eventName"] == semconv.EVENT_INCIDENT
    url = f"http://{at['query']}/api/v3/traces/{record['traceId']}"
    # The step leaves in one piece, but it may come in several.
    groups = until(servers, "the whole trace", lambda: whole_trace(url))

    spans = [
        (attributes_of(group["resource"]), span)
        for group in groups
        for scope in group["scopeSpans"]
        for span in scope["spans"]
    ]
    ranks = {resource.get(semconv.RANK) for resource, _ in spans}
    assert ranks >= set(range(8))
    roots = [span for _, span in spans if not span.get("parentSpanId")]
    assert len(roots) == 1
    assert roots[0]["name"].startswith("step")
    known = {span["spanId"] for _, span in spans}
    assert all(span["parentSpanId"] in known for _, span in spans if span is not roots[0])

    marked = [
        (resource[semconv.RANK], event)
        for resource, span in spans
        if attributes_of(span).get(semconv.ROLE) == "culprit"
        for event in span.get("events", [])
    ]
    reports = {rank: json.loads(attributes_of(event)[semconv.REPORT]) for rank, event in marked}
    assert 7 in reports, f"no report on a span of rank 7, only on those of {sorted(reports)}"
    assert reports[7]["culprit"]["ranks"] == [7]
    assert not {1, 3} & {rank for report in reports.values() for rank in report["culprit"]["ranks"]}

    shown = until(servers, "the metrics", lambda: metrics_with_incidents(at["prometheus"]))
    assert 'kat_rank="7"' in shown
    assert "nccl" not in shown.lower(), "a kernel's name became a label"

    process.terminate()
    assert process.wait(30) == 0
    servers.running = [(name, p) for name, p in servers.running if p is not process]
    said = servers.log("kat")
    assert "acknowledged 19,789" in said
    assert "pending 0" in said


def first_record(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    line = path.read_text().partition("\n")[0]
    return json.loads(line)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]


def whole_trace(url: str) -> list[dict[str, Any]] | None:
    groups = get(url)["result"]["resourceSpans"]
    ranks = {attributes_of(group["resource"]).get(semconv.RANK) for group in groups}
    return groups if ranks >= {None, *range(8)} else None


def metrics_with_incidents(endpoint: str) -> str | None:
    shown = get(f"http://{endpoint}/metrics")
    return shown if "kat_incidents_total" in shown and "kat_step_duration" in shown else None
