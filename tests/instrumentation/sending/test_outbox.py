"""What waits is bounded: whole steps go first, digests last, and nothing goes uncounted."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.outbox import Outbox, Parcel


def parcel(kind="whole", size: int = 10, items: int = 1) -> Parcel:
    return Parcel("metrics" if kind == "metrics" else "traces", kind, [[bytes(size)]], items)


def test_parcels_leave_in_the_order_in_which_they_came(counts: Counts) -> None:
    outbox = Outbox(1_000, counts)
    parcels = [parcel("digests"), parcel("whole"), parcel("metrics"), parcel("digests")]
    for one in parcels:
        outbox.put(one)
    assert [outbox.take(0) for _ in parcels] == parcels
    assert outbox.take(0) is None
    assert outbox.size == 0


def test_the_oldest_whole_steps_make_room_then_metrics_then_digests(counts: Counts) -> None:
    outbox = Outbox(40, counts)
    first, metrics, second, digests = map(parcel, ("whole", "metrics", "whole", "digests"))
    for one in (first, metrics, second, digests):
        outbox.put(one)
    outbox.put(parcel("digests"))
    assert counts["whole.dropped:queue_full"] == 1
    for _ in range(3):
        outbox.put(parcel("digests"))
    assert counts["whole.dropped:queue_full"] == 2
    assert counts["metrics.dropped:queue_full"] == 1
    assert counts["digests.dropped:queue_full"] == 1
    kept = [outbox.take(0) for _ in range(4)]
    assert [one.kind for one in kept if one] == ["digests"] * 4
    assert digests not in kept


def test_what_is_larger_than_all_room_is_refused(counts: Counts) -> None:
    outbox = Outbox(40, counts)
    outbox.put(parcel("digests"))
    outbox.put(parcel("whole", 41, items=7))
    assert counts["whole.dropped:queue_full"] == 7
    assert outbox.size == 10


@given(
    st.lists(st.tuples(st.sampled_from(["whole", "metrics", "digests"]), st.integers(0, 60))),
    st.integers(0, 100),
)
def test_the_bound_is_kept_and_every_item_is_taken_or_counted(sizes, limit: int) -> None:
    counts = Counts()
    outbox = Outbox(limit, counts)
    for kind, size in sizes:
        outbox.put(parcel(kind, size))
        assert outbox.size <= limit
    taken = 0
    while outbox.take(0):
        taken += 1
    dropped = sum(number for name, number in counts.read()[0].items() if "dropped" in name)
    assert taken + dropped == len(sizes)
    assert outbox.size == 0


@pytest.mark.parametrize("wake", ["put", "close"])
def test_who_waits_is_woken(counts: Counts, wake: str) -> None:
    outbox = Outbox(100, counts)
    found: list[Parcel | None] = []
    thread = threading.Thread(target=lambda: found.append(outbox.take(30)))
    thread.start()
    outbox.put(parcel()) if wake == "put" else outbox.close()
    thread.join(10)
    assert len(found) == 1
    assert (found[0] is None) == (wake == "close")


def test_after_the_end_nothing_is_taken_but_what_waits_may_leave(counts: Counts) -> None:
    outbox = Outbox(100, counts)
    outbox.put(parcel())
    outbox.close()
    outbox.put(parcel(items=3))
    assert counts["whole.dropped:closed"] == 3
    assert outbox.take(0) is not None
    assert outbox.take(30) is None
