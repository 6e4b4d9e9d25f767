"""Calls to a model leave spans and metrics by the GenAI semantic conventions, and no word said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel.analyzer.endpoint import Client, Endpoint
from kat_otel.processor.exporter import Payload
from kat_otel.processor.model_calls import ModelCalls
from tests.analyzer.openai_server import Said, serving

SECRET = "nobody may read this"


def called(*, metrics_interval: float = 60.0, traces: bool = True) -> list[Payload]:
    sent: list[Payload] = []

    def send(payload: Payload) -> bool:
        sent.append(payload)
        return True

    async def ask(url: str) -> None:
        client = Client(Endpoint(url, "m", "sk-key"), "text")
        await client.ask([{"role": "user", "content": SECRET}], {}, "text")
        await client.close()

    calls = ModelCalls(send, metrics_interval=metrics_interval, traces=traces)
    calls.start()
    try:
        with serving(lambda _: Said(SECRET)) as server:
            asyncio.run(ask(server.url))
    finally:
        calls.stop()
    return sent


def attributes(pairs: Any) -> dict[str, Any]:
    return {p.key: getattr(p.value, p.value.WhichOneof("value")) for p in pairs}


@pytest.fixture(scope="module")
def sent() -> list[Payload]:
    return called()


def test_a_call_is_a_span(sent: list[Payload]):
    (payload,) = [one for one in sent if one.signal == "traces"]
    assert payload.own, "sending it makes no span"
    (group,) = ExportTraceServiceRequest.FromString(payload.data).resource_spans
    assert attributes(group.resource.attributes)["service.name"] == "kat-process"
    (span,) = group.scope_spans[0].spans
    assert span.name == "chat m"
    said = attributes(span.attributes)
    assert (said["gen_ai.operation.name"], said["gen_ai.request.model"]) == ("chat", "m")
    assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (700, 90)


def test_tokens_and_durations_are_metrics_sent_at_the_latest_at_the_end(sent: list[Payload]):
    (payload,) = [one for one in sent if one.signal == "metrics"]
    (group,) = ExportMetricsServiceRequest.FromString(payload.data).resource_metrics
    metrics = {metric.name: metric for scope in group.scope_metrics for metric in scope.metrics}
    assert "gen_ai.client.operation.duration" in metrics
    tokens = {
        attributes(point.attributes)["gen_ai.token.type"]: point.sum
        for point in metrics["gen_ai.client.token.usage"].histogram.data_points
    }
    assert tokens == {"input": 700, "output": 90}


def test_what_was_said_is_in_neither(sent: list[Payload]):
    for payload in sent:
        assert SECRET.encode() not in payload.data
        assert b"sk-key" not in payload.data


def test_what_the_settings_do_not_want_is_not_sent():
    assert called(metrics_interval=0.0, traces=False) == []
