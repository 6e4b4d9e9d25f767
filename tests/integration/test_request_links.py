"""From a slow request to the step that made it slow, and back, in a real Jaeger.

engine and workers -> kat process (log on disk) -> Jaeger
"""

from __future__ import annotations

import json
import re
import urllib.parse
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel import semconv
from kat_otel.lmdia.table import WORKER_STEP
from kat_otel.otlp.wire import attribute
from tests.integration.jaeger import Jaeger, attributes_of
from tests.integration.servers import get
from tests.integration.traffic import Instance, Request, Sender

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

INSTANCE = Instance("linked")
PAGE = (Path(__file__).parents[2] / "docs" / "jaeger.md").read_text()
(ASKED,) = re.findall(r"`(\{\"kat\.request\.trace_id\":\"\w+\"\})`", PAGE)
SLOW = json.loads(ASKED)["kat.request.trace_id"]
QUICK = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
STEPS = {SLOW: (3, 4), QUICK: (1, 2)}
"""The steps that worked for each request; in those of the slow one a rank is late."""


def worked_for(request: Request, trace_id: str) -> Request:
    """What a rank sends of a step that worked for a request: its worker step links to it."""
    message = ExportTraceServiceRequest.FromString(request.data)
    for span in message.resource_spans[0].scope_spans[0].spans:
        if span.name == WORKER_STEP:
            span.links.add(trace_id=bytes.fromhex(trace_id), span_id=bytes.fromhex(CALLER))
    return replace(request, data=message.SerializeToString())


def of_the_engine(trace_id: str) -> Request:
    """What the engine's own instrumentation sends: the span of the call, of no rank."""
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    group.resource.attributes.append(attribute("service.name", "gateway"))
    begin = INSTANCE.begin_ns
    group.scope_spans.add().spans.add(
        trace_id=bytes.fromhex(trace_id),
        span_id=bytes.fromhex(CALLER),
        name="POST /v1/completions",
        kind=3,
        start_time_unix_nano=begin,
        end_time_unix_nano=begin + 200_000_000,
    )
    return Request(INSTANCE.name, 0, -1, message.SerializeToString())


def found(jaeger: Jaeger, trace_id: str) -> set[str]:
    """Traces that the page's own query returns, with a request's id in it."""
    asked = urllib.parse.urlencode(
        {"service": "kat", "tags": ASKED.replace(SLOW, trace_id), "limit": 100}
    )
    answer = get(f"http://{jaeger.query}/api/traces?{asked}")
    return {trace["traceID"].rjust(32, "0") for trace in answer["data"]}


def test_a_request_leads_to_its_steps_and_they_lead_back_to_it(servers):
    jaeger = Jaeger.start(servers)
    kat = servers.kat("kat", jaeger.endpoint, traces={"healthy_interval": "0s"})
    with Sender(kat.endpoint) as sender:
        sender.send([of_the_engine(trace_id) for trace_id in STEPS])
        sender.send(INSTANCE.steps([0]))
        for trace_id in (QUICK, SLOW):
            steps = INSTANCE.steps(STEPS[trace_id], faulty=trace_id == SLOW)
            sender.send([worked_for(request, trace_id) for request in steps])
        sender.send(INSTANCE.steps([5]))
    wanted = {
        trace_id: {INSTANCE.trace_id(step) for step in steps} for trace_id, steps in STEPS.items()
    }
    servers.until(
        "the steps of both requests",
        lambda: all(found(jaeger, trace_id) == steps for trace_id, steps in wanted.items()),
    )

    for trace_id, steps in wanted.items():
        called = jaeger.trace(trace_id).spans[int(CALLER, 16)]
        assert called["name"] == "POST /v1/completions", "what is no rank's passes on as it came"
        for step in steps:
            trace = jaeger.trace(step)
            ranks = [s for s in trace.spans.values() if s["name"].startswith("rank ")]
            assert len(ranks) == INSTANCE.ranks
            for rank in ranks:
                ((link),) = rank["links"]
                assert (link["traceId"], link["spanId"]) == (trace_id, CALLER)
            (root,) = trace.roots
            assert (semconv.INCIDENT_ID in attributes_of(root)) == (trace_id == SLOW)

    assert found(jaeger, "1" * 32) == set()
    for step in (0, 5):
        (root,) = jaeger.trace(INSTANCE.trace_id(step)).roots
        assert semconv.EVENT_REQUEST not in {event["name"] for event in root.get("events", [])}
