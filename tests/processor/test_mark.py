"""A step's trace can be read by itself: ranks by name, the diagnosis, and what it is found by."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from kat_otel import semconv
from kat_otel.analyzer import diagnose
from kat_otel.fields import REST
from kat_otel.otlp import link_parents
from kat_otel.otlp.rest import events_of
from kat_otel.processor.diagnoses import Diagnoses
from kat_otel.processor.mark import Root, mark_incidents, named_by_rank, with_root
from kat_otel.processor.requests import requests_of
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder
from tests.analyzer.test_diagnose import LATE, STEAL, incident

REQUESTS = [bytes([n]) * 16 for n in range(1, 21)]


def step(*, links: int = 3) -> SpanTable:
    """Ranks 6 and 7: a worker step with links to requests, and a kernel in it."""
    builder = SpanTableBuilder()
    work = Span(links=[Span.Link(trace_id=r, span_id=b"\1" * 8) for r in REQUESTS[:links]])
    for rank in (6, 7):
        resource = builder.add_resource(Resource(rank=rank, host="node-0"))
        builder.append(
            2,
            attributes={0: {REST: work.SerializeToString()}} if links else None,
            trace_lo=9,
            span_id=[10 * rank, 10 * rank + 1],
            parent_id=[0, 10 * rank],
            start_ns=[100, 110],
            duration_ns=[50, 10],
            name=[builder.strings.add("worker step"), builder.strings.add("gemm")],
            kind=[SpanKind.WORKER_STEP, SpanKind.KERNEL],
            resource=resource,
            step=3,
        )
    return link_parents(builder.build())


def diagnosed(**but):
    one = incident(**but)
    one.diagnosis = msgspec.to_builtins(diagnose(one))
    return one


def rooted(table: SpanTable, *incidents, reports: bool = True) -> SpanTable:
    root = Root("i", 3, 0, (), reports=reports)
    return with_root(mark_incidents(table, incidents, reports=reports), (100, 150), root, incidents)


def test_worker_steps_are_named_after_their_ranks_and_nothing_else_is():
    table = step()
    named = named_by_rank(table)
    assert [named.name_of(row) for row in range(4)] == ["rank 6", "gemm", "rank 7", "gemm"]
    assert table.name_of(0) == "worker step", "others have the table too"


def test_the_diagnosis_is_an_event_on_the_root_and_on_the_culprits_span_alone():
    one = diagnosed()
    table = rooted(step(), one)
    told = {
        row: event
        for row, said in table.attributes.items()
        for event in events_of(said)
        if event.name == semconv.EVENT_DIAGNOSIS
    }
    assert set(told) == {0, 3}, "the root, and the worker step of rank 7"
    for event in told.values():
        assert event.attributes[semconv.ROOT_CAUSE] == "late_host"
        assert "py-spy" in event.attributes[semconv.ACTION]
        assert json.loads(event.attributes[semconv.DIAGNOSIS]) == one.diagnosis


def test_a_step_that_tells_of_it_again_leaves_the_object_out_but_not_the_sentence():
    table = rooted(step(), diagnosed(), reports=False)
    (said,) = [e for e in events_of(table.attributes[0]) if e.name == semconv.EVENT_DIAGNOSIS]
    assert semconv.DIAGNOSIS not in said.attributes
    assert said.attributes[semconv.SUMMARY]


def test_root_and_culprit_are_found_by_component_kind_rank_and_host():
    table = rooted(step(), diagnosed())
    for row in (0, 3):
        said = table.attributes[row]
        assert said[semconv.COMPONENT] == "host_cpu"
        assert said[semconv.KIND] == "late_launch"
        assert said[semconv.CULPRIT_RANK] == 7
        assert said[semconv.CULPRIT_HOST] == "node-0"
    assert semconv.CULPRIT_RANK not in table.attributes[1]


def test_nobody_is_found_as_the_culprit_where_the_side_is_unknown():
    said = rooted(step(), diagnosed(sure=False)).attributes[0]
    assert semconv.CULPRIT_RANK not in said
    assert semconv.CULPRIT_HOST not in said


def test_links_to_requests_stay_and_the_root_names_their_traces():
    table = rooted(step(), diagnosed())
    worker = Span.FromString(table.attributes[3][REST])
    assert [link.trace_id for link in worker.links] == REQUESTS[:3]
    named = [
        event.attributes[semconv.REQUEST_TRACE_ID]
        for event in events_of(table.attributes[0])
        if event.name == semconv.EVENT_REQUEST
    ]
    assert named == [request.hex() for request in REQUESTS[:3]]


@pytest.mark.parametrize(("links", "named"), [(0, 0), (20, 16)])
def test_so_many_requests_are_named(links, named):
    assert len(requests_of(step(links=links))) == named


def test_an_incident_is_diagnosed_again_only_when_there_is_news_of_it():
    diagnoses = Diagnoses()
    first, same, more = incident(), incident(), incident(evidence=(*LATE, STEAL))
    same.impact_ns, same.last_seen = 5, 9
    diagnoses.fill([first, same])
    assert same.diagnosis is first.diagnosis
    diagnoses.fill([more])
    assert more.diagnosis is not None
    assert more.diagnosis["root_cause"] == "cpu_contention"


def test_marking_does_not_touch_what_is_not_marked():
    table = step()
    assert np.array_equal(mark_incidents(table, [diagnosed()]).span_id, table.span_id)
    assert table.attributes[2].keys() == {REST}
