"""Packed spans are what the decoder, and protobuf's own library, read back."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel import semconv
from kat_otel.fields import REST
from kat_otel.instrumentation.capture.library import load
from kat_otel.instrumentation.sending import native_pack, tails
from kat_otel.instrumentation.sending.native_pack import NativePacker
from kat_otel.instrumentation.sending.pack import Packer, request
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.table import to_table
from kat_otel.otlp import decode_traces, reference
from kat_otel.spans import COLUMNS, UNKNOWN, Resource, SpanKind, SpanTable, SpanTableBuilder
from tests.instrumentation import needs

needs.compiler()

TEXTS = st.text(max_size=30) | st.sampled_from(
    ["", "void gemm<float>(int*)", "ncclDevKernel_AllReduce_Sum_bf16", "Memcpy HtoD", "é" * 40]
)
NAMED = ("name", "grid", "block", "group")
MAKERS = {"numpy": Packer, "native": lambda: NativePacker(load())}
each_packer = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
RESOURCE = Resource(rank=3, world_size=8, instance="llama", attributes={"service.name": "vllm"})


@st.composite
def tables(draw: st.DrawFn, most: int = 40) -> SpanTable:
    """One rank's step with anything in its columns."""
    count = draw(st.integers(1, most))
    builder = SpanTableBuilder()
    builder.add_resource(RESOURCE)
    texts = [builder.strings.add(text) for text in draw(st.lists(TEXTS, min_size=1, max_size=5))]

    def column(values: st.SearchStrategy[int]) -> list[int]:
        return draw(st.lists(values, min_size=count, max_size=count))

    small, large = st.integers(UNKNOWN, 2**31 - 1), st.integers(UNKNOWN, 2**63 - 1)
    few = st.integers(UNKNOWN, 2)
    said = st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda key: key != REST),
        st.text(max_size=8) | st.booleans() | st.floats(allow_nan=False) | st.binary(max_size=5),
        max_size=3,
    )
    builder.append(
        count,
        attributes=draw(st.dictionaries(st.integers(0, count - 1), said, max_size=3)),
        trace_hi=draw(st.integers(0, 2**64 - 1)),
        trace_lo=draw(st.integers(1, 2**64 - 1)),
        span_id=column(st.integers(1, 2**64 - 1)),
        parent_id=column(st.integers(0, 2**64 - 1)),
        start_ns=column(st.integers(0, 2**62)),
        duration_ns=column(st.integers(0, 2**61)),
        kind=column(st.sampled_from([int(kind) for kind in SpanKind])),
        step=draw(small),
        thread=column(few | large),
        stream=column(few | small),
        correlation=column(large),
        graph=column(few),
        graph_node=column(large),
        bytes=column(large),
        sequence=column(few | large),
        **{name: column(st.sampled_from(texts)) for name in NAMED},
    )
    return builder.build()


def packed(table: SpanTable, packer: Packer | None = None, **limits: int) -> list[bytes]:
    lots = (packer or Packer()).pack(table, **limits)
    return [b"".join(request(RESOURCE, lot)) for lot in lots]


def rows_of(table: SpanTable) -> dict[int, list[tuple]]:
    """Every row as what it says, by span id: packing may change the order."""
    columns = [getattr(table, name).tolist() for name in COLUMNS if name not in ("parent", "step")]
    columns += [table.step.tolist()]
    names = [name for name in COLUMNS if name not in ("parent", "step")]
    for name in (*NAMED, "resource"):
        at = names.index(name)
        texts = table.resources if name == "resource" else table.strings
        columns[at] = [texts[index] for index in columns[at]]
    found: dict[int, list[tuple]] = {}
    for row, values in enumerate(zip(*columns, strict=True)):
        said = sorted(table.attributes.get(row, {}).items())
        found.setdefault(int(table.span_id[row]), []).append((*map(repr, values), repr(said)))
    return {key: sorted(values) for key, values in found.items()}


def same(table: SpanTable, *requests: bytes) -> bool:
    back: dict[int, list[tuple]] = {}
    for data in requests:
        for key, values in rows_of(decode_traces(data)).items():
            back[key] = sorted([*back.get(key, []), *values])
    return back == rows_of(table)


@each_packer
@settings(max_examples=60, deadline=None)
@given(table=tables())
def test_what_is_packed_is_decoded_to_the_same_spans(make, table: SpanTable) -> None:
    data = packed(table, make())
    expected = reference.table_of(reference.parse(b"".join(data)))
    assert same(expected, *data)
    # A kernel's name that is another span's, or no name, is what the decoder makes of it.
    kernels = np.isin(table.kind, (SpanKind.KERNEL, SpanKind.COLLECTIVE))
    named = np.array([table.strings[i] != "" for i in table.name])
    if not (kernels & ~named).any() and not any(
        set(said) & {semconv.KERNEL_NAME, semconv.SPAN_KIND} for said in table.attributes.values()
    ):
        assert same(table, *data)


@each_packer
@settings(max_examples=25, deadline=None)
@given(several=st.lists(tables(most=12), min_size=2, max_size=6))
def test_what_a_packer_keeps_from_other_steps_changes_nothing(
    make, several: list[SpanTable]
) -> None:
    packer = make()
    for table in [*several, *several]:
        assert sorted(packed(table, packer)) == sorted(packed(table, make()))


@each_packer
@settings(max_examples=25, deadline=None)
@given(table=tables(), limit=st.integers(1, 3000))
def test_requests_keep_their_limit_and_lose_nothing(make, table: SpanTable, limit: int) -> None:
    lots = list(make().pack(table, limit=limit))
    for lot in lots:
        assert sum(map(len, lot)) <= limit or len(lot) == 1
    requests = packed(table, make(), limit=limit)
    assert same(decode_traces(packed(table, make())[0]), *requests)


def step_of(group: Group, step: int = 3) -> SpanTable:
    noisy, times = group.play(step)
    return to_table(noisy, times, step=step, zero_unix_ns=10**18, nonce=5, rows=[1])


@each_packer
def test_a_step_comes_back_by_protobufs_own_library(make, pair: Group) -> None:
    table = step_of(pair)
    (data,) = packed(table, make())
    message = ExportTraceServiceRequest.FromString(data)
    (resource_spans,) = message.resource_spans
    said = {a.key: a.value for a in resource_spans.resource.attributes}
    assert said["kat.rank"].int_value == 3
    assert said["service.name"].string_value == "vllm"
    (scope_spans,) = resource_spans.scope_spans
    assert scope_spans.scope.name == semconv.SCOPE_NAME
    by_id = {int.from_bytes(span.span_id, "big"): span for span in scope_spans.spans}
    assert len(by_id) == len(table)
    for row in range(len(table)):
        span = by_id[int(table.span_id[row])]
        assert span.start_time_unix_nano == table.start_ns[row]
        assert span.end_time_unix_nano == table.end_ns[row]
        ints = {a.key: a.value.int_value for a in span.attributes}
        if table.correlation[row] >= 0:
            assert ints[semconv.CORRELATION_ID] == table.correlation[row]
    # What the library writes anew, in its shortest form, means the same.
    assert same(decode_traces(data), message.SerializeToString())


def test_steps_that_launch_the_same_work_are_laid_out_once(
    pair: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = step_of(pair)
    packer = Packer()
    (first,) = packed(table, packer)
    monkeypatch.setattr(tails, "_distinct", None)  # not called again
    later = table.with_columns(start_ns=table.start_ns + 1_000)
    (second,) = packed(later, packer)
    assert len(first) == len(second)
    assert same(replace(later, resources=(RESOURCE,)), second)


def test_values_that_meet_in_the_hash_are_still_told_apart(
    pair: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = replace(step_of(pair), resources=(RESOURCE,))
    monkeypatch.setattr(tails, "_FACTORS", np.zeros(9, np.uint64))  # all rows meet
    assert same(table, *packed(table))


@each_packer
@pytest.mark.parametrize("size", [15_000, 17_000, 2_200_000])
def test_a_very_long_name_is_packed_alone(make, size: int, pair: Group) -> None:
    table = replace(step_of(pair), resources=(RESOURCE,))
    names = table.name.copy()
    names[5] = table.strings.add("x" * size)
    table = table.with_columns(name=names)
    assert same(table, *packed(table, make()))


@each_packer
def test_links_and_whole_times_of_the_worker_step_stay(make, pair: Group) -> None:
    table = step_of(pair)
    link = b"\x6a\x1c\x0a\x10" + b"t" * 16 + b"\x12\x08" + b"s" * 8
    table = replace(table, attributes={0: {**table.attributes[0], REST: link}})
    (data,) = packed(table, make())
    spans = ExportTraceServiceRequest.FromString(data).resource_spans[0].scope_spans[0].spans
    (linked,) = [span for span in spans if span.links]
    assert (linked.links[0].trace_id, linked.links[0].span_id) == (b"t" * 16, b"s" * 8)
    row = next(r for r, said in decode_traces(data).attributes.items() if REST in said)
    assert decode_traces(data).attributes[row][REST] == link


@each_packer
def test_spans_of_several_traces_are_refused(make, pair: Group) -> None:
    table = step_of(pair)
    traces = np.arange(len(table), dtype=np.uint64)
    with pytest.raises(ValueError, match="one step at a time"):
        list(make().pack(table.with_columns(trace_lo=traces)))


@each_packer
def test_no_spans_are_no_request(make) -> None:
    assert list(make().pack(SpanTable.empty())) == []


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch, pair: Group) -> None:
    monkeypatch.setattr(tails, "_MAX_TAILS", 10)
    packer = Packer()
    table = replace(step_of(pair), resources=(RESOURCE,))
    for number in itertools.count(1):
        grid = np.full(len(table), table.strings.add(f"{number},1,1"), np.int32)
        changed = table.with_columns(grid=np.where(table.grid > 0, grid, table.grid))
        assert same(changed, *packed(changed, packer))
        if number == 5:
            break
    layouts = packer._layouts
    assert len(layouts._last) <= 4
    assert len(layouts._tails) <= 10


def test_what_the_native_packer_keeps_is_bounded(
    monkeypatch: pytest.MonkeyPatch, pair: Group
) -> None:
    monkeypatch.setattr(native_pack, "_MOST_TAILS", 40)
    packer = NativePacker(load())
    table = replace(step_of(pair), resources=(RESOURCE,))
    for number in range(1, 9):
        grid = np.full(len(table), table.strings.add(f"{number},1,1"), np.int32)
        changed = table.with_columns(grid=np.where(table.grid > 0, grid, table.grid))
        assert same(changed, *packed(changed, packer))
        assert packer._tail_count <= 40
        assert np.count_nonzero(packer._tails["used"]) == packer._tail_count


def test_the_native_packer_packs_all_rows_but_those_with_attributes(pair: Group) -> None:
    packer = NativePacker(load())
    table = step_of(pair)
    whole, *rest = packer.pack(table)
    assert not rest
    assert len(whole) == len(table.attributes) + 1
