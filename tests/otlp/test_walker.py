"""The walker says what the protobuf library says, field by field, and reads nothing else."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel.errors import DecodeError
from kat_otel.otlp import Rejected, decode_traces, encode_traces, reference
from kat_otel.otlp.intern import Interner, SharedStrings
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder, StringTable, concat
from kat_otel.wire import delimited
from tests.otlp.requests import difference, mutated, refuses_groups_only, request

SHARED = StringTable()


def by_library(data: bytes, rejected: Rejected | None, limit: int | None = None) -> SpanTable:
    return reference.table_of(reference.parse(data), rejected, None, limit)


def assert_equal(data: bytes, strings: StringTable | None = None, limit: int | None = None) -> None:
    ours, theirs = Rejected(), Rejected()
    try:
        wanted = by_library(data, theirs, limit)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_traces(data, rejected=ours, strings=strings, max_attribute_bytes=limit)
        return
    try:
        got = decode_traces(data, rejected=ours, strings=strings, max_attribute_bytes=limit)
    except DecodeError as error:
        assert refuses_groups_only(error)  # noqa: PT017
        return
    assert difference(got, wanted) == ""
    assert ours == theirs


@given(st.integers(0, 2**63), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([None, 30]))
@settings(max_examples=600, deadline=None)
def test_any_request_is_read_as_the_library_reads_it(seed, oddity, limit):
    data = request(random.Random(seed), oddity)
    assert_equal(data, None, limit)
    assert_equal(data, SHARED, limit)


@given(st.integers(0, 2**63))
@settings(max_examples=600, deadline=None)
def test_mutated_requests_are_refused_or_read_as_the_library_does(seed):
    rng = random.Random(seed)
    assert_equal(mutated(rng, request(rng, 0.3)), SHARED)


def kernels(count: int, first: int = 0) -> SpanTable:
    builder = SpanTableBuilder()
    builder.add_resource(Resource(rank=3))
    names = [builder.strings.add(f"void gemm_{i % 7}<int, {i}>(float*)") for i in range(count)]
    builder.append(
        count,
        trace_lo=1,
        span_id=np.arange(first + 1, first + count + 1),
        start_ns=np.arange(count) + 5,
        duration_ns=7,
        name=names,
        kind=SpanKind.KERNEL,
        stream=7,
        correlation=np.arange(count),
        grid=builder.strings.add("1,2,3"),
    )
    return builder.build()


def wire_of(table: SpanTable) -> bytes:
    return b"".join(encode_traces(table))


@pytest.mark.parametrize("count", [1, 255, 256, 3_000])
def test_many_names_that_nobody_has_seen_before(count):
    assert_equal(wire_of(kernels(count)))


def test_a_shared_string_table_is_shared_and_joined_without_another_look():
    strings = StringTable()
    parts = [decode_traces(wire_of(kernels(20, at)), strings=strings) for at in (0, 100)]
    whole = concat(parts)
    assert whole.strings is strings
    assert all(part.strings is strings for part in parts)
    assert [whole.name_of(row) for row in range(40)] == [
        part.name_of(row) for part in parts for row in range(20)
    ]


def test_texts_that_share_their_hash_are_told_apart(monkeypatch):
    # Every text in one slot: only the comparison of all bytes is left, and the slow way.
    strings = StringTable()
    interner = Interner.of(strings)
    interner.add([f"other {i}".encode() for i in range(200)], [])
    slots = interner.tables.slots
    taken = np.flatnonzero(slots)
    first = slots[taken[0]]
    slots[:] = 0
    for place in range(len(slots)):  # every probe finds another text under any tag
        slots[place] = first
    assert_equal(wire_of(kernels(50)), strings)


def test_threads_that_meet_new_names_at_once_agree():
    strings = StringTable()
    wires = [wire_of(kernels(400 + 50 * at)) for at in range(6)]
    failures: list[str] = []

    def work(wire: bytes) -> None:
        for _ in range(5):
            found = difference(decode_traces(wire, strings=strings), by_library(wire, None))
            if found:
                failures.append(found)

    threads = [threading.Thread(target=work, args=(wire,)) for wire in wires]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(strings)) == len(strings)


def test_a_full_table_of_texts_is_begun_anew():
    shared = SharedStrings(max_strings=10)
    first = shared.current()
    assert shared.current() is first
    table = decode_traces(wire_of(kernels(20)), strings=first)
    assert shared.current() is not first
    assert table.name_of(0) == "void gemm_0<int, 0>(float*)"


@pytest.mark.parametrize("kind", [1, 3])  # 3: a client's span, which the library reads
def test_a_table_of_large_texts_is_begun_anew_whoever_read_them(kind):
    shared = SharedStrings(max_bytes=1 << 20)
    first = shared.current()
    for n in range(30):
        message = ExportTraceServiceRequest()
        span = message.resource_spans.add().scope_spans.add().spans.add()
        span.trace_id, span.span_id, span.kind = b"t" * 16, b"s" * 8, kind
        span.name = f"{n}" + "n" * 50_000
        decode_traces(message.SerializeToString(), strings=shared.current())
    assert shared.current() is not first
    assert sum(map(len, first)) < 2 << 20


def test_many_scopes_of_one_large_resource_cost_no_more_than_their_bytes():
    message = ExportTraceServiceRequest()
    group = message.resource_spans.add()
    for n in range(3_000):
        group.resource.attributes.add(key=f"k{n}").value.string_value = "v"
    header = group.SerializeToString()
    assert len(header) > 16_384
    same = delimited(b"\x0a", header + b"\x12\x00" * 20_000)
    begun = time.perf_counter()
    decode_traces(same)
    in_pieces = delimited(b"\x0a", b"\x28\x01\x12\x00" * 100_000)  # field 5 is unknown
    decode_traces(in_pieces)
    assert time.perf_counter() - begun < 5.0  # they took minutes
    scopes = (delimited(b"\x12", delimited(b"\x1a", b"%d" % n)) for n in range(20_000))
    with pytest.raises(DecodeError, match="said anew for each"):
        decode_traces(delimited(b"\x0a", header + b"".join(scopes)), max_attribute_bytes=65_536)


@pytest.mark.parametrize("place", ["resource", "scope", "name", "schema_url"])
def test_spans_of_a_resource_with_a_longer_attribute_than_allowed_are_rejected(place):
    message = ExportTraceServiceRequest()
    for text in ("a" * 64, "a" * 65):
        group = message.resource_spans.add()
        scope = group.scope_spans.add()
        if place == "name":
            scope.scope.name = text
        elif place == "schema_url":
            group.schema_url = text
        else:
            holder = group.resource if place == "resource" else scope.scope
            holder.attributes.add(key="x").value.string_value = text
        for n, kind in enumerate((1, 3)):
            scope.spans.add(trace_id=b"t" * 16, span_id=b"%08d" % n, kind=kind)
    data = message.SerializeToString()
    assert_equal(data, None, 64)
    rejected = Rejected()
    table = decode_traces(data, rejected=rejected, max_attribute_bytes=64)
    assert len(table) == rejected.spans == 2
    assert rejected.reason.startswith("resource_spans[1]: ")
    assert rejected.reason.endswith("of 65 bytes, at most 64 are taken")
    assert table.resources[1] == Resource()  # nor is it kept
    with pytest.raises(DecodeError, match="at most 64 are taken"):
        decode_traces(data, max_attribute_bytes=64)


def test_a_span_with_a_longer_attribute_than_allowed_is_rejected_with_its_reason():
    builder = SpanTableBuilder()
    builder.add_resource(Resource())
    builder.append(
        3,
        trace_lo=1,
        span_id=[1, 2, 3],
        name=builder.strings.add("op"),
        attributes={0: {"x": "a" * 64}, 1: {"x": "a" * 65}, 2: {"y": b"b" * 65}},
    )
    rejected = Rejected()
    table = decode_traces(wire_of(builder.build()), rejected=rejected, max_attribute_bytes=64)
    assert table.span_id.tolist() == [1]
    assert rejected.spans == 2
    assert "spans[1] ('op'): attribute 'x' of 65 bytes, at most 64 are taken" in rejected.reason


def test_bytes_are_an_attribute_in_both_directions():
    builder = SpanTableBuilder()
    builder.add_resource(Resource(attributes={"token": b"\x00\xff"}))
    values = {"kat.digest": b"\x00\x01\xff", "kat.group.size": 8, "half": 0.5, "yes": True}
    builder.append(1, trace_lo=1, span_id=1, attributes={0: values})
    table = decode_traces(wire_of(builder.build()))
    assert table.attributes == {0: values}
    assert table.resources[0].attributes == {"token": b"\x00\xff"}


@pytest.mark.parametrize("levels", [40, 46, 47, 48, 49, 50, 60])
def test_values_are_as_deep_as_the_library_allows_and_no_deeper(levels):
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue

    for holder in ("span", "resource"):
        message = ExportTraceServiceRequest()
        group = message.resource_spans.add()
        span = group.scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
        value = AnyValue()
        at = value
        for _ in range(levels):
            at = at.array_value.values.add()
        at.int_value = 1
        place = span if holder == "span" else group.resource
        place.attributes.add(key="deep").value.CopyFrom(value)
        assert_equal(message.SerializeToString())


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\x80\x80\x80\x80\x80\x80\x01",  # a length of seven bytes
        b"\x0a\xff\xff\xff\xff\x0f",  # 4 GiB
        b"\x0a\xff\xff\xff\xff\x07",  # 2 GiB
        b"\x0a\x05\x12",  # cut off
        b"\x0b\x0c",  # a group
        b"\x0c",  # the end of one
        b"\x0e\x00",  # wire types that do not exist
        b"\x0f\x00",
        b"\x00\x00",  # field number 0
        b"\x02\x00",
        b"\x80\x80\x80\x80\x80\x01\x00",  # a tag of six bytes
        b"\xfa\xff\xff\xff\x7f\x00",  # a field number beyond 2**29
        b"\x08" + b"\xff" * 10 + b"\x01",  # a varint of eleven bytes
        b"\x08" + b"\xff" * 9 + b"\x7f",  # one of ten, beyond 64 bits
        b"\x8a\x00\x00",  # an overlong tag
        b"\x0a\x80\x00",  # an overlong length
        b"\x12\x03abc",  # unknown fields
        b"\x09" + bytes(8),
        b"\x0d" + bytes(4),
    ],
)
def test_the_outer_form_is_taken_and_refused_as_by_the_library(data):
    assert_equal(data)
    # the same one and two levels down
    assert_equal(b"\x0a" + bytes([len(data)]) + data)
    assert_equal(b"\x0a" + bytes([len(data) + 2]) + b"\x12" + bytes([len(data)]) + data)
