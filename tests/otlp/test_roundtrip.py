"""What is encoded comes back, column by column; what is not OTLP is refused, not misread."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel import semconv
from kat_otel.errors import DecodeError
from kat_otel.otlp import (
    Rejected,
    decode_traces,
    encode_requests,
    encode_traces,
    link_parents,
)
from kat_otel.spans import COLUMNS, Resource, SpanKind, SpanTable, SpanTableBuilder, concat

TEXT_COLUMNS = ("name", "grid", "block", "group")
INT32 = st.integers(-1, 2**31 - 1)
INT64 = st.integers(-1, 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALAR = st.one_of(
    TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False)
)
EXTRA = st.dictionaries(TEXT.map(lambda t: f"x.{t}"), SCALAR, max_size=3)


@st.composite
def resources(draw: st.DrawFn) -> Resource:
    return Resource(
        rank=draw(INT32),
        world_size=draw(INT32),
        instance=draw(TEXT),
        device=draw(INT32),
        host=draw(TEXT),
        hardware_id=draw(TEXT),
        tp=draw(INT32),
        pp=draw(INT32),
        dp=draw(INT32),
        ep=draw(INT32),
        resolution_ns=draw(st.integers(1, 10**6)),
        source=draw(TEXT),
        attributes=draw(EXTRA),
    )


@st.composite
def tables(draw: st.DrawFn) -> SpanTable:
    builder = SpanTableBuilder()
    count = draw(st.integers(0, 8))
    kept = draw(st.lists(resources(), min_size=1, max_size=3))
    for resource in kept:
        builder.add_resource(resource)

    def column(values: st.SearchStrategy[int]) -> list[int]:
        return draw(st.lists(values, min_size=count, max_size=count))

    def texts(values: st.SearchStrategy[str]) -> list[int]:
        return [builder.strings.add(draw(values)) for _ in range(count)]

    ids = draw(st.lists(st.integers(1, 2**64 - 1), min_size=count, max_size=count, unique=True))
    start = column(st.integers(0, 2**62))
    builder.append(
        count,
        trace_hi=column(st.integers(0, 2)),
        trace_lo=column(st.integers(1, 3)),
        span_id=ids,
        parent_id=[draw(st.sampled_from([0, 5, *ids])) for _ in ids],
        start_ns=start,
        duration_ns=column(st.integers(0, 2**62)),
        name=texts(st.one_of(TEXT, st.just("void gemm<int, 4>(float*)"))),
        kind=column(st.sampled_from(list(SpanKind))),
        resource=column(st.integers(0, len(kept) - 1)),
        step=column(INT32),
        thread=column(INT64),
        stream=column(INT32),
        correlation=column(INT64),
        graph=column(INT32),
        graph_node=column(INT64),
        grid=texts(TEXT),
        block=texts(TEXT),
        bytes=column(INT64),
        group=texts(TEXT),
        sequence=column(INT64),
        attributes={row: draw(EXTRA) for row in range(0, count, 2)},
    )
    return link_parents(builder.build())


def parent_ids(table: SpanTable, rows: np.ndarray) -> list[int]:
    return [int(table.span_id[row]) if row >= 0 else 0 for row in rows]


def assert_same_spans(got: SpanTable, wanted: SpanTable) -> None:
    """Same spans; grouping by resource may have moved rows, so they are matched by span id."""
    assert len(got) == len(wanted)
    ours, theirs = np.argsort(got.span_id), np.argsort(wanted.span_id)
    for name in COLUMNS:
        a, b = getattr(got, name)[ours], getattr(wanted, name)[theirs]
        if name in TEXT_COLUMNS:
            assert [got.strings[i] for i in a] == [wanted.strings[i] for i in b], name
        elif name == "parent":
            ids = [
                [int(t.span_id[p]) if p >= 0 else 0 for p in c] for t, c in ((got, a), (wanted, b))
            ]
            assert ids[0] == ids[1]
        elif name == "resource":
            assert [got.resources[i] for i in a] == [wanted.resources[i] for i in b]
        else:
            assert a.tolist() == b.tolist(), name
    assert [dict(got.attributes.get(int(r), {})) for r in ours] == [
        dict(wanted.attributes.get(int(r), {})) for r in theirs
    ]


@given(tables(), st.sampled_from([1, 300, 5_000, 10**7]))
@settings(max_examples=150, deadline=None)
def test_what_is_encoded_comes_back_whole_whatever_the_request_limit(table, limit):
    parts = [decode_traces(data) for data in encode_traces(table, limit=limit)]
    assert_same_spans(link_parents(concat([SpanTable.empty(), *parts])), table)


@given(tables(), st.integers(600, 3_000))
@settings(max_examples=50, deadline=None)
def test_requests_stay_below_the_limit_unless_one_span_is_larger(table, limit):
    requests = list(encode_requests(table, limit=limit))
    assert sorted(r for b in requests for r in b.rows.tolist()) == list(range(len(table)))
    assert all(len(b.data) <= limit or len(b.rows) == 1 for b in requests)


@given(tables(), st.data())
@settings(max_examples=200, deadline=None)
def test_mutated_bytes_are_decoded_or_refused_and_nothing_else(table, data):
    wire = bytearray(b"".join(encode_traces(table)) or b"\x0a\x00")
    for _ in range(data.draw(st.integers(1, 4))):
        action = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        at = data.draw(st.integers(0, len(wire)))
        if action == "flip" and at < len(wire):
            wire[at] ^= data.draw(st.integers(1, 255))
        elif action == "cut":
            del wire[at:]
        else:
            wire[at:at] = data.draw(st.binary(max_size=4))
    try:
        table = decode_traces(bytes(wire))
    except DecodeError:
        return
    # What was accepted can be sent on and be read again.
    for again in encode_traces(table):
        decode_traces(again)


def test_only_the_asked_rows_are_encoded():
    builder = SpanTableBuilder()
    builder.add_resource(Resource(rank=3))
    builder.append(3, trace_hi=1, trace_lo=1, span_id=[7, 8, 9], parent_id=[0, 7, 8])
    wire = b"".join(encode_traces(builder.build(), np.array([False, True, True])))
    table = link_parents(decode_traces(wire))
    assert table.span_id.tolist() == [8, 9]
    assert table.parent.tolist() == [-1, 0]
    assert table.parent_id.tolist() == [7, 8]
    assert table.rank.tolist() == [3, 3]


def test_random_bytes_are_refused_with_their_length():
    with pytest.raises(DecodeError, match=r"4 bytes.*not an OTLP trace message"):
        decode_traces(b"\xff\xff\xff\xff")


def test_single_bad_spans_are_counted_if_the_caller_can_answer_partial_success():
    builder = SpanTableBuilder()
    builder.add_resource(Resource())
    builder.append(2, trace_hi=1, trace_lo=[1, 1], span_id=[7, 0], name=builder.strings.add("op"))
    wire = b"".join(encode_traces(builder.build()))
    rejected = Rejected()
    assert decode_traces(wire, rejected=rejected).span_id.tolist() == [7]
    assert rejected.spans == 1
    assert "spans[1] ('op'): span id" in rejected.reason
    with pytest.raises(DecodeError, match="span id"):
        decode_traces(wire)


def test_circles_of_parents_are_cut():
    builder = SpanTableBuilder()
    builder.add_resource(Resource())
    builder.append(5, trace_lo=1, span_id=[1, 2, 3, 4, 5], parent_id=[2, 1, 2, 4, 0])
    assert link_parents(builder.build()).parent.tolist() == [-1] * 5


def test_a_parent_is_looked_for_in_its_own_trace_only():
    builder = SpanTableBuilder()
    builder.add_resource(Resource())
    builder.append(3, trace_lo=[1, 2, 2], span_id=[7, 7, 8], parent_id=[0, 0, 7])
    assert link_parents(builder.build()).parent.tolist() == [-1, -1, 1]


def test_kernel_spans_carry_their_full_name_once_and_a_short_span_name():
    from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

    builder = SpanTableBuilder()
    builder.add_resource(Resource())
    name = builder.strings.add("void gemm<int, 4>(float*)")
    builder.append(1, trace_lo=1, span_id=1, name=name, kind=SpanKind.KERNEL)
    span = TracesData.FromString(b"".join(encode_traces(builder.build())))
    span = span.resource_spans[0].scope_spans[0].spans[0]
    assert span.name == "gemm"
    assert {a.key: a.value.string_value for a in span.attributes} == {
        semconv.KERNEL_NAME: "void gemm<int, 4>(float*)"
    }
