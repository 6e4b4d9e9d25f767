"""The processor's own work as spans: sampled, bounded, true to the clock."""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel.processor.self_traces import SelfTraces
from kat_otel.telemetry import Books, Work

REQUEST = Work("request", 100.0, 100.5, (("decode", 100.25), ("append", 100.5)), {"spans": 44})


@pytest.fixture
def sent():
    return []


@pytest.fixture
def books():
    return Books()


@pytest.fixture
def traces(sent, books):
    def offer(data: bytes) -> bool:
        sent.append(ExportTraceServiceRequest.FromString(data))
        return True

    return SelfTraces(offer, books, clocks=lambda: (101.0, 1_005_000_000_000))


def spans_of(request):
    return request.resource_spans[0].scope_spans[0].spans


def test_work_becomes_a_trace_of_the_whole_and_its_parts(traces, sent):
    traces.take(REQUEST)
    (request,) = sent
    resource = {a.key: a.value for a in request.resource_spans[0].resource.attributes}
    assert resource["service.name"].string_value == "kat-process"
    whole, decode, append = spans_of(request)
    assert [span.name for span in (whole, decode, append)] == ["request", "decode", "append"]
    assert {span.trace_id for span in (whole, decode, append)} == {whole.trace_id}
    assert decode.parent_span_id == append.parent_span_id == whole.span_id
    assert not whole.parent_span_id
    # One second before the monotonic clock read 101 the Unix clock read 1,004 s.
    times = [(s.start_time_unix_nano, s.end_time_unix_nano) for s in (whole, decode, append)]
    assert times == [
        (1_004_000_000_000, 1_004_500_000_000),
        (1_004_000_000_000, 1_004_250_000_000),
        (1_004_250_000_000, 1_004_500_000_000),
    ]
    (said,) = whole.attributes
    assert (said.key, said.value.int_value) == ("kat.processor.spans", 44)


def test_one_of_a_hundred_of_each_kind_is_sent(traces, sent):
    for at in range(250):
        traces.take(Work("request", at, at + 0.1, (), {}))
        traces.take(Work("export", at, at + 0.1, (), {}))
    assert sorted(spans_of(request)[0].name for request in sent) == ["export"] * 3 + ["request"] * 3


def test_all_slow_work_is_sent_but_waiting_for_other_ranks_is_not_slowness(traces, sent):
    traces.take(Work("step", 0.0, 0.1, (), {}))  # the first of its kind is always sent
    traces.take(Work("step", 0.0, 60.0, (("assemble", 59.9), ("judge", 60.0)), {}))
    assert len(sent) == 1
    traces.take(Work("step", 0.0, 60.0, (("assemble", 50.0), ("judge", 60.0)), {}))
    traces.take(Work("request", 0.0, 60.0, (("decode", 0.1), ("append", 60.0)), {}))
    assert len(sent) == 3


def test_when_everything_is_slow_most_is_left_out_and_counted(traces, sent, books):
    for _ in range(100):
        traces.take(Work("request", 0.0, 60.5, (), {}))
    assert len(sent) == 20
    assert books.marked("self-traces left out") == 80
    traces.take(Work("request", 0.0, 61.0, (), {}))
    assert len(sent) == 21


def test_a_full_queue_is_counted_and_nothing_waits(books):
    SelfTraces(lambda _: False, books).take(REQUEST)
    assert books.marked("self-traces left out") == 1
