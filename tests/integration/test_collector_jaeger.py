"""The main job with nothing simulated: files -> collector -> kat process -> collector -> Jaeger.

Every server is the real one, on free ports of loopback, and is ended whatever happens; when
the test fails, what they said is shown.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kat_otel import semconv
from tests.integration.jaeger import Jaeger, Trace, attributes_of
from tests.integration.servers import KAT, free_endpoints, get

pytestmark = pytest.mark.integration


@pytest.mark.timeout(240)
def test_the_culprit_of_a_replayed_step_is_marked_in_jaeger(traces, servers, tmp_path):
    at = free_endpoints("grpc", "http", "back", "prometheus")
    jaeger = Jaeger.start(servers)
    process = servers.kat("kat", at["back"])
    servers.collector(
        "state",
        "gateway.yaml",
        KAT_COLLECTOR_GRPC_ENDPOINT=at["grpc"],
        KAT_COLLECTOR_HTTP_ENDPOINT=at["http"],
        KAT_PROCESS_ENDPOINT=process.endpoint,
        KAT_RETURN_ENDPOINT=at["back"],
        KAT_JAEGER_ENDPOINT=jaeger.endpoint,
        KAT_PROMETHEUS_ENDPOINT=at["prometheus"],
    )

    replay_dlrm = [*KAT, "replay", str(traces / "dlrm_8rank")]
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
    record = servers.until("the incident's log event", lambda: first_record(incidents_file))
    assert record["eventName"] == semconv.EVENT_INCIDENT
    # The step leaves in one piece, but it may come in several.
    trace = servers.until("the whole trace", lambda: whole_trace(jaeger, record["traceId"]))

    (root,) = trace.roots
    assert root["name"].startswith("step")
    assert not trace.orphans

    marked = [
        (trace.resources[number][semconv.RANK], event)
        for number, span in trace.spans.items()
        if attributes_of(span).get(semconv.ROLE) == "culprit"
        for event in span.get("events", [])
    ]
    reports = {
        rank: json.loads(attributes_of(event)[semconv.REPORT])
        for rank, event in marked
        if event["name"] == semconv.EVENT_INCIDENT
    }
    assert 7 in reports, f"no report on a span of rank 7, only on those of {sorted(reports)}"
    assert reports[7]["culprit"]["ranks"] == [7]
    diagnoses = {
        rank: attributes_of(event)[semconv.ROOT_CAUSE]
        for rank, event in marked
        if event["name"] == semconv.EVENT_DIAGNOSIS
    }
    assert diagnoses[7] == reports[7]["diagnosis"]["root_cause"] == "late_host"
    assert {f"rank {rank}" for rank in range(8)} <= {span["name"] for span in trace.spans.values()}
    assert not {1, 3} & {rank for report in reports.values() for rank in report["culprit"]["ranks"]}

    shown = servers.until("the metrics", lambda: metrics_with_incidents(at["prometheus"]))
    assert 'kat_rank="7"' in shown
    assert "nccl" not in shown.lower(), "a kernel's name became a label"

    assert process.stop() == 0
    said = process.said()
    assert "acknowledged 19,789" in said
    assert "pending 0" in said


def first_record(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    line = path.read_text().partition("\n")[0]
    return json.loads(line)["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]


def whole_trace(jaeger: Jaeger, trace_id: str) -> Trace | None:
    trace = jaeger.trace(trace_id)
    ranks = {resource.get(semconv.RANK) for resource in trace.resources.values()}
    return trace if ranks >= {None, *range(8)} else None


def metrics_with_incidents(endpoint: str) -> str | None:
    shown = get(f"http://{endpoint}/metrics")
    return shown if "kat_incidents_total" in shown and "kat_step_duration" in shown else None
