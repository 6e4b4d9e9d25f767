"""Joining and cutting tables: whatever the way taken, the spans are the same."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.spans import COLUMNS, NO_PARENT, Resource, SpanTable, SpanTableBuilder, StringTable
from kat_otel.spans import concat as joined

TEXTS = ["", "gemm", "reduce", "softmax"]


def table(count: int, strings: StringTable | None = None, *, first: int = 1) -> SpanTable:
    builder = SpanTableBuilder(strings)
    builder.add_resource(Resource(rank=first))
    builder.append(
        count,
        span_id=np.arange(first, first + count),
        parent=np.arange(count) - 1,
        start_ns=np.arange(count) * 10,
        duration_ns=3,
        name=[builder.strings.add(TEXTS[(first + at) % 4]) for at in range(count)],
        grid=builder.strings.add("1,1,1"),
        attributes={0: {"first": first}} if count else None,
    )
    return builder.build()


def described(spans: SpanTable) -> list[tuple[object, ...]]:
    return [
        (
            int(spans.span_id[row]),
            spans.name_of(row),
            spans.text(int(spans.grid[row])),
            spans.resources[int(spans.resource[row])].rank,
            int(spans.span_id[spans.parent[row]]) if spans.parent[row] >= 0 else 0,
            dict(spans.attributes.get(row, {})),
        )
        for row in range(len(spans))
    ]


@pytest.mark.parametrize("shared", [True, False])
def test_joined_tables_have_all_spans_with_their_texts_parents_and_resources(shared):
    strings = StringTable() if shared else None
    parts = [table(3, strings), SpanTable.empty(), table(4, strings, first=50)]
    whole = joined(parts)
    assert described(whole) == [line for part in parts for line in described(part)]
    assert (whole.strings is strings) == shared
    assert all(getattr(whole, name).dtype == column.dtype for name, column in COLUMNS.items())


def test_nothing_joined_is_an_empty_table():
    assert len(joined([])) == 0
    assert len(joined([SpanTable.empty(), SpanTable.empty()])) == 0


def test_only_used_texts_of_a_large_table_are_carried_over():
    strings = StringTable(f"never used {at}" for at in range(1_000))
    whole = joined([table(3, strings), table(2)])
    assert set(whole.strings) <= {*TEXTS, "1,1,1"}


@given(st.integers(0, 12), st.integers(0, 12))
def test_a_run_of_rows_is_the_same_as_these_rows_picked(low, high):
    spans = table(12)
    rows = np.arange(min(low, high), max(low, high))
    run = spans.take(rows)
    # Picked backwards, and turned back: the general way.
    picked = spans.take(rows[::-1].copy()).take(np.arange(len(rows))[::-1].copy())
    assert described(run) == described(picked)
    assert described(spans.take(np.isin(np.arange(12), rows))) == described(run)


def test_parents_outside_the_rows_are_none():
    assert table(5).take(np.array([2, 3])).parent.tolist() == [NO_PARENT, 0]


def test_a_few_rows_do_not_keep_a_large_table_alive():
    spans = table(100)
    assert not np.shares_memory(spans.take(np.arange(10)).start_ns, spans.start_ns)
    assert np.shares_memory(spans.take(np.arange(90)).start_ns, spans.start_ns)


def test_texts_added_by_many_threads_have_one_index_each():
    strings = StringTable()
    texts = [f"text {at}" for at in range(2_000)]
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for text in texts:
            strings.add(text)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(strings) == sorted(["", *texts])
    assert all(strings[strings.find(text)] == text for text in texts)


def test_a_string_table_is_pickled_without_what_belongs_to_the_process():
    strings = StringTable(["a"])
    strings.companion = threading.Lock()
    again = pickle.loads(pickle.dumps(strings))
    assert list(again) == ["", "a"]
    assert again.companion is None
