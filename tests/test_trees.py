"""Parents by containment and by correlation, against references that are slow and plain."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.trees import fill_along, innermost_enclosing, join_launches

SPAN = st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 12), st.integers(0, 1))


def brute_force(spans, tolerance):
    order = sorted(
        range(len(spans)),
        key=lambda i: (spans[i][0], spans[i][1], spans[i][3], -(spans[i][1] + spans[i][2]), i),
    )
    parent = [-1] * len(spans)
    for place, i in enumerate(order):
        lane, start, length, _ = spans[i]
        need = start + length
        if tolerance and length:
            need = max(need - tolerance, start + 1)
        for j in reversed(order[:place]):
            if spans[j][0] == lane and spans[j][1] + spans[j][2] >= need:
                parent[i] = j
                break
    return parent


@given(spans=st.lists(SPAN, max_size=40), tolerance=st.sampled_from([0, 1, 3]))
@settings(max_examples=400, deadline=None)
def test_containment_equals_the_brute_force(spans, tolerance):
    columns = np.array(spans, dtype=np.int64).reshape(-1, 4)
    lane, start, length, hint = columns.T
    found = innermost_enclosing(lane, start, start + length, hint, tolerance)
    assert found.tolist() == brute_force(spans, tolerance)


def test_a_child_that_rounding_made_a_microsecond_too_long_keeps_its_parent():
    # op 10.9 to 15.8 us is written as 10 + 4 = 14; its launch 11.9 to 15.7 as 11 + 3 ... or 11 + 4
    start = np.array([10_000, 11_000], dtype=np.int64)
    end = np.array([14_000, 15_000], dtype=np.int64)
    lane = hint = np.zeros(2, dtype=np.int64)
    assert innermost_enclosing(lane, start, end, hint, 1000).tolist() == [-1, 0]
    assert innermost_enclosing(lane, start, end, hint, 0).tolist() == [-1, -1]


def test_neighbours_that_touch_do_not_become_parent_and_child():
    start = np.array([0, 5_000], dtype=np.int64)
    end = np.array([5_000, 6_000], dtype=np.int64)
    lane = hint = np.zeros(2, dtype=np.int64)
    assert innermost_enclosing(lane, start, end, hint, 1000).tolist() == [-1, -1]


def test_a_hundred_thousand_nested_spans_are_not_quadratic():
    count = 100_000  # a ladder down, then rungs that each end later than all of it but the first
    start = np.arange(2 * count, dtype=np.int64)
    end = np.concatenate([3 * count - np.arange(count), np.arange(count) + 5 * count])
    end[0] = 10 * count
    lane = hint = np.zeros(2 * count, dtype=np.int64)
    found = innermost_enclosing(lane, start, end, hint, 0)
    assert found[1:count].tolist() == list(range(count - 1))
    assert not found[count:].any()


@given(
    launches=st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 8)), max_size=20),
    work=st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 8)), max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_correlation_joins_within_a_process_only(launches, work):
    calls = np.array(launches, dtype=np.int64).reshape(-1, 2)
    gpu = np.array(work, dtype=np.int64).reshape(-1, 2)
    found = join_launches(calls[:, 0], calls[:, 1], gpu[:, 0], gpu[:, 1])
    assert found.tolist() == [
        launches.index(key) if key[1] > 0 and key in launches else -1 for key in work
    ]


def test_unlaunched_work_takes_the_step_of_its_stream():
    stream = np.array([1, 1, 1, 2, 2, 3])
    start = np.array([10, 20, 30, 10, 20, 10])
    step = np.array([0, 5, 0, 0, 6, 9], np.int32)
    known = np.array([False, True, False, False, True, False])
    assert fill_along(stream, start, step, known).tolist() == [5, 5, 5, 6, 6, 9]
