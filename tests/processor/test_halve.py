"""Halves of a request hold its items once, in order, under their own resources."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel.processor.halve import halve


def request_of(shape: list[list[int]]) -> ExportTraceServiceRequest:
    request, number = ExportTraceServiceRequest(), 0
    for at, scopes in enumerate(shape):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="rank").value.int_value = at
        for count in scopes:
            scope = resource.scope_spans.add()
            for _ in range(count):
                scope.spans.add(name=str(number))
                number += 1
    return request


def names(data: bytes) -> list[tuple[int, str]]:
    return [
        (resource.resource.attributes[0].value.int_value, span.name)
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@given(st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=4))
def test_the_halves_are_the_whole(shape):
    data = request_of(shape).SerializeToString()
    total = sum(map(sum, shape))
    halves = halve("traces", data)
    if total < 2:
        assert halves == []
        return
    (first, a), (second, b) = halves
    assert (a, b) == (total // 2, total - total // 2)
    assert names(first) + names(second) == names(data)
    assert len(names(first)) == a


@pytest.mark.parametrize("count", [2, 3, 9])
def test_log_records_are_parted_too(count):
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for number in range(count):
        scope.log_records.add(time_unix_nano=number)
    halves = halve("logs", request.SerializeToString())
    assert sum(items for _, items in halves) == count
