"""Begins and ends of NVTX ranges find each other, whenever they come; what does not is counted."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.instrumentation.capture import halves
from kat_otel.instrumentation.capture.halves import HALF, Halves


@given(st.permutations(range(12)), st.integers(1, 5))
def test_ranges_are_found_in_any_order_within_a_batch_and_across(
    order: list[int], size: int
) -> None:
    made = np.zeros(12, HALF)
    made["id"] = np.tile(np.arange(6), 2)
    made["flags"] = np.repeat([2, 4], 6)
    made["name"] = np.where(made["flags"] == 2, made["id"] + 10, 0)
    made["time"] = np.arange(12) * 100 + 1
    # Across batches a begin comes before its end; within one they may stand in any order.
    shuffled = made[sorted(order, key=lambda i: (i >= 6) * 12 + order.index(i))]
    joiner = Halves()
    ranges = np.concatenate([joiner.join(shuffled[at : at + size]) for at in range(0, 12, size)])
    assert sorted(ranges["name"].tolist()) == [10, 11, 12, 13, 14, 15]
    assert (ranges["end"] - ranges["start"] == 600).all()
    assert joiner.lost == 0


def test_an_end_without_a_begin_is_counted() -> None:
    end = np.zeros(1, HALF)
    end["flags"] = 4
    joiner = Halves()
    assert len(joiner.join(end)) == 0
    assert joiner.lost == 1


def test_begins_that_never_end_are_bounded() -> None:
    begins = np.zeros(halves._OPEN + 10, HALF)
    begins["flags"] = 2
    begins["id"] = np.arange(len(begins))
    begins["time"] = np.arange(len(begins))
    joiner = Halves()
    joiner.join(begins)
    assert joiner.lost == 10
    end = np.zeros(1, HALF)
    end["flags"] = 4
    end["id"] = 9  # one of the oldest, given up
    assert len(joiner.join(end)) == 0
