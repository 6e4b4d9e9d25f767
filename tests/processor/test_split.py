"""A batch is parted by instance, rank and trace; every span is in one part, as it came."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.processor.split import split_by_step
from kat_otel.spans import Resource, SpanTable, SpanTableBuilder

RESOURCES = [
    *(Resource(rank=rank, instance=name) for name in ("a", "b") for rank in (0, 1)),
    Resource(rank=0, instance="a", host="said anew"),
    Resource(instance="a"),
    Resource(),
]
spans = st.lists(st.tuples(st.integers(0, len(RESOURCES) - 1), st.integers(1, 3)), max_size=30)


def batch_of(spans: list[tuple[int, int]]) -> SpanTable:
    """A table of (resource, trace) spans, each with its row as id and as attribute."""
    builder = SpanTableBuilder()
    for resource in RESOURCES:
        builder.add_resource(resource)
    rows = np.arange(len(spans))
    builder.append(
        len(spans),
        resource=[resource for resource, _ in spans],
        trace_lo=[trace for _, trace in spans],
        span_id=rows + 1,
        attributes={row: {"row": row} for row in rows.tolist()},
    )
    return builder.build()


def told(table: SpanTable) -> list[Any]:
    """Each span: its resource, trace, id and attributes."""
    owners = [table.resources[number] for number in table.resource.tolist()]
    ids, traces = table.span_id.tolist(), table.trace_lo.tolist()
    said = [table.attributes[row] for row in range(len(table))]
    return list(zip(map(str, owners), traces, ids, map(str, said), strict=True))


@given(spans)
def test_every_span_is_in_one_part_as_it_came(spans: list[tuple[int, int]]) -> None:
    table = batch_of(spans)
    foreign, parts = split_by_step(table)
    assert Counter(told(table)) == Counter(
        one for part in (foreign, *(p[2] for p in parts)) for one in told(part)
    )
    for part in (foreign, *(p[2] for p in parts)):
        assert (np.diff(part.span_id.astype(np.int64)) > 0).all(), "the order of arrival"


@given(spans)
def test_a_part_is_of_one_rank_and_trace_and_has_its_own_resources(
    spans: list[tuple[int, int]],
) -> None:
    foreign, parts = split_by_step(batch_of(spans))
    assert all(foreign.resources[number].rank < 0 for number in foreign.resource.tolist())
    keys = [(key, rank) for key, rank, _ in parts]
    assert len(set(keys)) == len(keys)
    for key, rank, part in parts:
        assert {(r.instance, r.rank) for r in part.resources} == {(key.instance, rank)}
        assert set(part.trace_lo.tolist()) == {key.trace_lo}
        assert sorted(set(part.resource.tolist())) == list(range(len(part.resources)))


def test_parts_that_stand_together_are_views() -> None:
    table = batch_of([(0, 1), (0, 1), (1, 1), (1, 1)])
    for _, _, part in split_by_step(table)[1]:
        assert np.shares_memory(part.start_ns, table.start_ns)


def test_a_batch_of_many_ranks_costs_each_its_own() -> None:
    """Not ranks times ranks: resources and attributes are not carried from part to part."""
    builder = SpanTableBuilder()
    for rank in range(4_000):
        builder.add_resource(Resource(rank=rank, instance="wide"))
    builder.append(
        4_000,
        resource=np.arange(4_000),
        trace_lo=1,
        span_id=np.arange(4_000) + 1,
        attributes={row: {"row": row} for row in range(4_000)},
    )
    _, parts = split_by_step(builder.build())
    assert len(parts) == 4_000
    assert {len(part.resources) for _, _, part in parts} == {1}
    assert {len(part.attributes) for _, _, part in parts} == {1}
