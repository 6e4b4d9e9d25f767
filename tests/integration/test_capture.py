"""The whole way without a GPU: capture in eight processes -> collector -> kat process -> incident.

The stand-in CUPTI replays the kernels of a real trace (vLLM, gpt-oss, TP8 prefill on B200; one
rank recorded, cloned to eight with fitted noise: semi-synthetic) inside eight real worker
processes, instrumented by their environment alone. In one of them launches come late from a step
on. Everything else is real: shim, shared memory, helper processes, collector, processor.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kat_otel import semconv
from kat_otel.lmdia.decode import workers
from kat_otel.lmdia.extract import extract
from kat_otel.lmdia.inject import late_launches
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.semi import cloned
from kat_otel.lmdia.table import to_table
from kat_otel.readers import read
from kat_otel.spans import SpanKind
from tests.instrumentation.recorded import rows_of
from tests.instrumentation.standin import build
from tests.integration.servers import WHOLE, Kat, Server, Servers, free_endpoints
from tests.integration.sink import Sink

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RANKS = 8
STEPS = 24
SICK_FROM = 14
CULPRIT = 3
LATE_NS = 3_000_000
INTERVAL_NS = 400_000_000
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recording(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder with the records of every rank and step, and the spans of a rank's step."""
    folder = tmp_path_factory.mktemp("recording")
    program = cloned(extract(read([traces / "vllm_gptoss_b200_tp8_rank0"]).table), workers(RANKS))
    held = np.flatnonzero(program.of_kind(SpanKind.COLLECTIVE))[[10, 30, 50]] - 1
    sick = late_launches(program, CULPRIT, LATE_NS, held.tolist()).program
    group = Group(program, seed=5)
    names: list[str] = []
    count = 0
    for step in range(STEPS):
        noisy, times = group.play(step, sick if step >= SICK_FROM else None)
        for rank in range(RANKS):
            rows, names = rows_of(to_table(noisy, times, step=step, rows=[rank]), 0)
            np.save(folder / f"{rank}-{step}.npy", rows)
            count = len(rows)
    (folder / "names.json").write_text(json.dumps(names))
    return folder, count + 1  # and the worker step


class Crew:
    """The worker processes of an instance."""

    def __init__(self, servers: Servers, folder: Path, **environment: str) -> None:
        self._servers = servers
        self._begin = servers.folder / "begin"
        command = [sys.executable, "-m", "tests.instrumentation.replaying_worker"]
        command += [str(folder), str(INTERVAL_NS), str(self._begin)]
        group = {
            "KAT_OTEL": "on",
            "KAT_CUPTI_LIBRARY": str(build()),
            "OTEL_SERVICE_NAME": "gpt-oss",
            "WORLD_SIZE": str(RANKS),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            "TORCHELASTIC_RUN_ID": "run-1",
            "KAT_OVERHEAD_BUDGET": "0",  # sixteen processes share the cores of this machine
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
            **environment,
        }
        self.workers: list[Server] = [
            servers.start(f"worker-{rank}", command, **group, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank in range(RANKS)
        ]

    def run(self) -> None:
        """Lets all begin together; returns when all have run their steps."""
        self._wait("ready")
        self._begin.write_text(str(time.time_ns() + 4_000_000_000))
        self._wait("done")

    def stop(self) -> None:
        """Ends them as a server is ended."""
        for worker in self.workers:
            assert worker.stop() == 0, worker.said()

    def _wait(self, word: str) -> None:
        for worker in self.workers:
            self._servers.until(
                f"{worker.name} {word}", lambda one=worker: word in one.said().splitlines()
            )


def collected(
    servers: Servers, sink: Sink, *, before: Sequence[str] = (), **settings: Any
) -> tuple[Kat, str]:
    """A collector around a processor; the sink gets what leaves. Returns where workers send."""
    at = free_endpoints("grpc", "http", "back", "prometheus")
    kat = servers.kat("kat", at["back"], before=before, **settings)
    servers.collector(
        "state",
        "gateway.yaml",
        before=before,
        KAT_COLLECTOR_GRPC_ENDPOINT=at["grpc"],
        KAT_COLLECTOR_HTTP_ENDPOINT=at["http"],
        KAT_PROCESS_ENDPOINT=kat.endpoint,
        KAT_RETURN_ENDPOINT=at["back"],
        KAT_JAEGER_ENDPOINT=sink.endpoint,
        KAT_PROMETHEUS_ENDPOINT=at["prometheus"],
    )
    return kat, f"http://{at['http']}"


@pytest.mark.timeout(240)
def test_the_culprit_among_eight_captured_processes_is_named(
    recording: tuple[Path, int], servers: Servers, sink: Sink
) -> None:
    folder, spans_a_step = recording
    kat, endpoint = collected(servers, sink, **WHOLE)
    crew = Crew(servers, folder, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, KAT_SAMPLE_EVERY="1")
    crew.run()

    # Every launch and kernel of every rank and step, and nothing twice.
    everything = RANKS * (1 + STEPS * spans_a_step)  # the warm-up has a worker step alone
    servers.until("all spans", lambda: kat.books().total("acknowledged") >= everything)
    crew.stop()
    told = servers.until("the incident", lambda: reports(servers))
    assert kat.books().total("acknowledged") == everything
    assert {tuple(one["culprit"]["ranks"]) for one in told} == {(CULPRIT,)}, told
    assert {one["kind"] for one in told} <= {"late_launch", "stall"}
    first = told[0]
    assert first["steps"][0] == 1 + SICK_FROM
    assert first["victims"] == [rank for rank in range(RANKS) if rank != CULPRIT]
    assert first["impact_ns"] == pytest.approx(3 * LATE_NS, rel=0.2)
    assert first["component"] == "host_cpu"


def reports(servers: Servers) -> list[dict[str, Any]]:
    return list(_reports(servers.folder / "state" / "incidents.jsonl"))


def _reports(path: Path) -> Iterator[dict[str, Any]]:
    """The reports in the log events that the collector wrote to its file."""
    for line in path.read_text().splitlines() if path.exists() else []:
        for resource in json.loads(line)["resourceLogs"]:
            for scope in resource["scopeLogs"]:
                for record in scope["logRecords"]:
                    said = {one["key"]: one["value"] for one in record["attributes"]}
                    yield json.loads(said[semconv.REPORT]["stringValue"])
