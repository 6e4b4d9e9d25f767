"""Parents are found by id within their trace, wherever they stand, and no walk is endless."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.otlp import link_parents, parents_in_step
from kat_otel.spans import Resource, SpanTable, SpanTableBuilder


def table_of(
    ids: list[int], parents: list[int], traces: list[int], resources: list[int]
) -> SpanTable:
    builder = SpanTableBuilder()
    for rank in range(max(resources) + 1):
        builder.add_resource(Resource(rank=rank))
    builder.append(
        len(ids), span_id=ids, parent_id=parents, trace_lo=traces, resource=resources, trace_hi=9
    )
    return builder.build()


def expected(table: SpanTable) -> list[int]:
    """Brute force: the first row of the id in the trace; nobody in or below a circle."""
    first: dict[tuple[int, int], int] = {}
    spans = list(zip(table.trace_lo.tolist(), table.span_id.tolist(), strict=True))
    for row, key in enumerate(spans):
        first.setdefault(key, row)
    wanted = zip(table.trace_lo.tolist(), table.parent_id.tolist(), strict=True)
    parents = [first.get(key, -1) if key[1] else -1 for key in wanted]

    def ends(row: int) -> bool:
        seen: set[int] = set()
        while row >= 0 and row not in seen:
            seen.add(row)
            row = parents[row]
        return row < 0

    return [parent if ends(row) else -1 for row, parent in enumerate(parents)]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_it_is_what_brute_force_finds(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 120))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    distinct = data.draw(st.sampled_from([4, 60, 10_000]))
    workers = data.draw(st.sampled_from([1, 3, 50]))
    if workers == 1:
        ids = rng.integers(1, distinct + 1, count).tolist()
    else:  # the same id from two workers is a parent to the spans of each
        ids = (1 + rng.permutation(count)).tolist()
    parents = rng.choice([0, *ids], count).tolist()
    traces = rng.integers(1, 1 + data.draw(st.integers(1, 3)), count).tolist()
    resources = np.sort(rng.integers(0, workers, count)).tolist()
    table = table_of(ids, parents, traces, resources)
    assert link_parents(table).parent.tolist() == expected(table)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_step_is_linked_the_quick_way_alike(data: st.DataObject) -> None:
    """In whatever order the spans of its workers stand; ids of different ones may be the same."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sizes = data.draw(st.lists(st.integers(1, 150), min_size=1, max_size=4))
    shared = data.draw(st.booleans())
    strangers = data.draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    ids, parents, resources = list[int](), list[int](), list[int]()
    for worker, size in enumerate(sizes):
        own = 1 + rng.permutation(200)[:size] + (0 if shared else 1_000 * worker)
        near = np.maximum(np.arange(size) - rng.choice([0, 1, 1, 2, 30], size), 0)
        wanted = np.where(rng.random(size) < 0.1, 0, own[near])
        wanted = np.where(rng.random(size) < strangers, rng.integers(1, 3_000, size), wanted)
        ids += own.tolist()
        parents += wanted.tolist()
        resources += [worker] * size
    table = table_of(ids, parents, [1] * len(ids), resources)
    quick = parents_in_step(table.span_id, table.parent_id, [0, *accumulate(sizes)])
    assert quick.tolist() == link_parents(table).parent.tolist()


@pytest.mark.parametrize("depth", [3, 63, 64, 65, 500])
def test_deep_trees_are_linked_and_long_circles_are_cut(depth: int) -> None:
    ids = list(range(1, depth + 1))
    chain = table_of(ids, [0, *ids[:-1]], [1] * depth, [0] * depth)
    assert link_parents(chain).parent.tolist() == list(range(-1, depth - 1))
    circle = table_of(ids, [ids[-1], *ids[:-1]], [1] * depth, [0] * depth)
    assert set(link_parents(circle).parent.tolist()) == {-1}


def test_a_parent_on_another_rank_is_found() -> None:
    ids = list(range(1, 65))
    parents = [0] * 64
    parents[40], parents[41], parents[2] = 3, 3, 60
    table = table_of(ids, parents, [1] * 64, [0] * 32 + [1] * 32)
    linked = link_parents(table).parent
    assert (linked[40], linked[41], linked[2]) == (2, 2, 59)
