"""Reduction keeps what explains the incident, and never leaves an orphan."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.otlp import link_parents
from kat_otel.processor.reduce import cited_rows, select_spans, summary_spans, with_ancestors
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder


@st.composite
def forests(draw: st.DrawFn) -> SpanTable:
    count = draw(st.integers(1, 60))
    builder = SpanTableBuilder()
    builder.add_resource(Resource(rank=0))
    parents = [draw(st.integers(0, row)) for row in range(count)]  # 0: none; else row + 1
    kinds = [SpanKind.HOST_OP, SpanKind.LAUNCH, SpanKind.KERNEL, SpanKind.COLLECTIVE]
    builder.append(
        count,
        trace_lo=1,
        span_id=np.arange(1, count + 1),
        parent_id=parents,
        start_ns=draw(st.lists(st.integers(0, 1_000), min_size=count, max_size=count)),
        duration_ns=draw(st.lists(st.integers(0, 1_000), min_size=count, max_size=count)),
        kind=[
            SpanKind.WORKER_STEP if parent == 0 else draw(st.sampled_from(kinds))
            for parent in parents
        ],
    )
    return link_parents(builder.build())


def orphans(table: SpanTable, kept: np.ndarray) -> np.ndarray:
    has_parent = kept & (table.parent >= 0)
    return has_parent & ~kept[table.parent]


@given(forests(), st.data())
@settings(max_examples=200, deadline=None)
def test_cited_spans_and_all_ancestors_stay_whatever_the_limit(table, data):
    limit = data.draw(st.integers(1, 70))
    rows = data.draw(st.sets(st.integers(0, len(table) - 1), max_size=5))
    cited = np.isin(np.arange(len(table)), list(rows))
    kept = select_spans(table, cited, limit)
    assert np.all(kept[cited])
    assert np.all(kept[table.kind == SpanKind.WORKER_STEP])
    assert not np.any(orphans(table, kept))
    always = with_ancestors(table, cited) | summary_spans(table)
    assert np.count_nonzero(kept) <= max(limit, np.count_nonzero(always))
    if len(table) <= limit:
        assert np.all(kept)


@given(forests())
@settings(max_examples=50, deadline=None)
def test_a_summary_is_one_span_a_rank_and_no_orphans(table):
    kept = summary_spans(table)
    assert set(table.kind[kept].tolist()) == {SpanKind.WORKER_STEP}
    assert not np.any(orphans(table, kept))


def test_collectives_are_kept_before_longer_kernels():
    builder = SpanTableBuilder()
    builder.add_resource(Resource(rank=0))
    builder.append(
        4,
        trace_lo=1,
        span_id=[1, 2, 3, 4],
        parent_id=[0, 1, 1, 1],
        duration_ns=[100, 90, 5, 80],
        kind=[SpanKind.WORKER_STEP, SpanKind.KERNEL, SpanKind.COLLECTIVE, SpanKind.KERNEL],
    )
    table = link_parents(builder.build())
    none = np.zeros(4, dtype=bool)
    assert select_spans(table, none, 2).tolist() == [True, False, True, False]
    assert select_spans(table, none, 3).tolist() == [True, True, True, False]


def test_spans_of_other_steps_are_not_found_though_their_ids_are_alike(fleet, judge_class):
    slow = fleet.rank(1, 7, slow_ns=5_000_000)
    (incident,) = judge_class().judge(slow).incidents
    assert slow.name_of(int(cited_rows(slow, incident)[0])) == "void gemm_2<float>(int)"
    other = slow.with_columns(trace_lo=slow.trace_lo + np.uint64(1))
    assert cited_rows(other, incident).tolist() == [-1]
