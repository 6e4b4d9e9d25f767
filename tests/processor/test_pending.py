"""What waits for the rest of its step takes little memory, and comes back as it came."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kat_otel.joined import JoinedTable
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.recording import Group, record
from kat_otel.otlp import link_parents
from kat_otel.processor.pending import Pending
from kat_otel.processor.split import split_by_step
from kat_otel.spans import COLUMNS, SpanTable, concat

GROUP = Group(decode_program(LLAMA_70B, workers(2, instance="pending")), 1)


@pytest.fixture(scope="module")
def batch() -> SpanTable:
    return record(GROUP, range(3))


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_step_comes_back_as_it_came(batch: SpanTable, ranks: int, folded: bool) -> None:
    parts = [p for p in split_by_step(batch)[1] if p[0].trace_lo == int(batch.trace_lo[0])]
    pending = Pending(parts[0][0], 0.0)
    for _, rank, spans in parts[:ranks]:
        assert pending.add(spans, rank, 0.0) == 0
    for number in range(ranks if folded else 0):
        pending.fold(number)
    table = pending.whole()
    for name in set(COLUMNS) - {"resource", "parent"}:
        came = np.concatenate([getattr(spans, name) for _, _, spans in parts[:ranks]])
        assert np.array_equal(getattr(table, name), came), name
        assert getattr(table, name).flags.c_contiguous
        assert getattr(table, name).flags.writeable
    assert [r.rank for r in table.resources] == list(range(ranks))


def test_a_step_is_the_table_of_all_its_parts(batch: SpanTable) -> None:
    """However it is put together: the same columns, resources, parents and attributes."""
    parts = [p for p in split_by_step(batch)[1] if p[0].trace_lo == int(batch.trace_lo[0])]
    pending = Pending(parts[0][0], 0.0)
    for _, rank, spans in parts:
        pending.add(spans, rank, 0.0)
    whole = pending.whole()
    assert isinstance(whole, JoinedTable)
    slow = link_parents(concat(pending.tables))
    assert whole.resources == slow.resources
    assert whole.attributes == slow.attributes
    assert whole.attributes
    for name in reversed(COLUMNS):
        assert np.array_equal(getattr(whole, name), getattr(slow, name)), name
        assert getattr(whole, name).dtype == getattr(slow, name).dtype
    assert (whole.parent >= 0).mean() > 0.9
    some = np.arange(0, len(slow), 7)
    assert np.array_equal(whole.take(some).bytes, slow.take(some).bytes)
    assert replace(whole, resources=()).trace_lo.tolist() == slow.trace_lo.tolist()


def test_a_rank_that_came_in_pieces_is_one_worker(batch: SpanTable) -> None:
    parts = [p for p in split_by_step(batch)[1] if p[0].trace_lo == int(batch.trace_lo[0])]
    pending = Pending(parts[0][0], 0.0)
    for _, rank, spans in parts:
        for piece in np.array_split(np.arange(len(spans)), 3):
            pending.add(spans.take(piece), rank, 0.0)
    whole = pending.whole()
    assert [r.rank for r in whole.resources] == [0, 1]
    assert np.array_equal(whole.parent, link_parents(concat([p[2] for p in parts])).parent)


def test_folded_spans_hold_nothing_of_their_batch(batch: SpanTable) -> None:
    """One value a column is kept once, and no view keeps the batch's own memory alive."""
    (key, rank, spans), *_ = split_by_step(batch)[1]
    pending = Pending(key, 0.0)
    pending.add(spans, rank, 0.0)
    pending.fold(0)
    (kept,) = pending.tables
    for name in COLUMNS:
        assert not np.shares_memory(getattr(kept, name), getattr(batch, name)), name
    assert kept.nbytes <= 0.75 * spans.nbytes
    assert kept.nbytes < pending.size < kept.nbytes + 1_000, "and the attributes of one span"
