"""Each query of docs/jaeger.md finds the step it is to find in a real Jaeger, and no other."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from pathlib import Path

import grpc
import msgspec
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from kat_otel import semconv
from kat_otel.analyzer import diagnose
from kat_otel.fields import REST
from kat_otel.identity import root_span_id
from kat_otel.otlp import encode_traces, link_parents
from kat_otel.processor.mark import Root, mark_incidents, named_by_rank, with_root
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder
from tests.analyzer.test_diagnose import incident
from tests.integration.jaeger import Jaeger, attributes_of
from tests.integration.servers import Servers, get
from tests.integration.traffic import EXPORT

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "jaeger.md").read_text()
QUERIES = re.findall(r"`(\{\"kat\..*?\})`", PAGE)
REQUEST = re.search(r'"kat.request.trace_id":"(\w+)"', PAGE)[1]
ILL, WELL, OTHER = 7, 8, 9
"""The step that the page asks for; a healthy one; one with another fault, of another request."""


@pytest.fixture(scope="module")
def jaeger(tmp_path_factory):
    servers = Servers(tmp_path_factory.mktemp("jaeger"))
    try:
        started = Jaeger.start(servers)
        _fill(started)
        yield started
    finally:
        servers.stop()


def _fill(jaeger: Jaeger) -> None:
    late, other = incident(), incident("gpu_clock", "slow_rank", host="node-1")
    other.culprit.ranks, other.page = [6], False
    for one in (late, other):
        one.diagnosis = msgspec.to_builtins(diagnose(one))
    with grpc.insecure_channel(jaeger.endpoint) as channel:
        export = channel.unary_unary(EXPORT["traces"])
        for table in (step(ILL, REQUEST, late), step(WELL, "1" * 32), step(OTHER, "2" * 32, other)):
            for request in encode_traces(table):
                export(request)


def step(number: int, request: str, *incidents) -> SpanTable:
    """Ranks 6 and 7 work for a request, each with a kernel, as they leave the processor."""
    begin = time.time_ns() - 5_000_000_000
    builder = SpanTableBuilder()
    link = Span.Link(trace_id=bytes.fromhex(request), span_id=b"\1" * 8)
    root_id = root_span_id(np.array([number], np.uint64))[0]
    for rank in (6, 7):
        resource = Resource(
            rank=rank, host=f"node-{rank}", attributes={semconv.SERVICE_NAME: "vllm"}
        )
        builder.append(
            2,
            attributes={0: {REST: Span(links=[link]).SerializeToString()}},
            trace_lo=number,
            span_id=[10 * rank, 10 * rank + 1],
            parent_id=[root_id, 10 * rank],
            start_ns=[begin, begin + 100],
            duration_ns=[5_000_000, 10_000],
            name=[builder.strings.add("worker step"), builder.strings.add("gemm")],
            kind=[SpanKind.WORKER_STEP, SpanKind.KERNEL],
            resource=builder.add_resource(resource),
            step=number,
        )
    marked = named_by_rank(mark_incidents(link_parents(builder.build()), incidents))
    return with_root(marked, (begin, begin + 5_000_000), Root("i", number, 0, ()), incidents)


def found(jaeger: Jaeger, tags: str) -> set[int]:
    """Steps whose traces the search of Jaeger's own page returns."""
    asked = urllib.parse.urlencode({"service": "kat", "tags": tags, "limit": 100})
    answer = get(f"http://{jaeger.query}/api/traces?{asked}")
    return {int(trace["traceID"], 16) for trace in answer["data"]}


def test_the_page_has_its_queries():
    assert len(QUERIES) >= 8


@pytest.mark.parametrize("tags", QUERIES)
def test_a_query_of_the_page_finds_the_step_and_no_other(jaeger, tags):
    assert found(jaeger, tags) == {ILL}


def test_without_tags_all_three_are_found(jaeger):
    assert found(jaeger, "{}") == {ILL, WELL, OTHER}


def test_a_step_reads_by_itself(jaeger):
    trace = jaeger.trace(f"{ILL:032x}")
    (root,) = trace.roots
    assert not trace.orphans
    names = {span["name"] for span in trace.spans.values()}
    assert names == {f"step {ILL}", "rank 6", "rank 7", "gemm"}
    told = {
        span["name"]: attributes_of(event)
        for span in trace.spans.values()
        for event in span.get("events", [])
        if event["name"] == semconv.EVENT_DIAGNOSIS
    }
    assert told.keys() == {root["name"], "rank 7"}
    for said in told.values():
        assert json.loads(said[semconv.DIAGNOSIS])["root_cause"] == said[semconv.ROOT_CAUSE]
    red = [s["name"] for s in trace.spans.values() if s.get("status", {}).get("code") == 2]
    assert sorted(red) == ["rank 7", root["name"]]
    links = [link["traceId"] for s in trace.spans.values() for link in s.get("links", [])]
    assert links == [REQUEST, REQUEST]


def test_what_does_not_page_is_not_red(jaeger):
    spans = jaeger.trace(f"{OTHER:032x}").spans.values()
    assert [s["name"] for s in spans if s.get("status", {}).get("code") == 2] == []
