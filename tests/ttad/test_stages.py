"""Pipeline stages are no peers: a slow stage is said of the stage, and no rank is blamed.

The trace is ByteDance's production job of four stages and two replicas (operation level);
its publishers' label: the last stage is slow, forward 0.139 s against 0.067 s.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from kat_otel.identity import span_ids, trace_ids
from kat_otel.kernels import CollectivePattern, Semantics
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder
from kat_otel.ttad import Settings, analyze

OPERATIONS = Settings(
    collectives=(
        CollectivePattern(r"all-gather|reduce-scatter|all-reduce", Semantics.BARRIER),
        CollectivePattern(r"-(send|recv)$", Semantics.PAIRWISE),
    )
)


def straggler(folder: Path) -> SpanTable:
    """Reads the operations as GPU work, computation and communication on streams of their own."""
    table = parquet.read_table(folder / "bytedance_straggler_ST" / "trace-ST.parquet")
    column = {name: table[name].to_numpy() for name in table.column_names}
    builder = SpanTableBuilder()
    ranks = np.unique(column["rank"])
    for rank in ranks:
        stage = int(column["stage"][column["rank"] == rank][0])
        replica = int(column["dp_rank"][column["rank"] == rank][0])
        builder.add_resource(
            Resource(rank=int(rank), world_size=8, pp=stage, dp=replica, resolution_ns=1000)
        )
    kinds = {name: i for i, name in enumerate(np.unique(column["optype"].astype(str)))}
    names = column["optype"].astype(str)
    start = np.round(column["start_ts"].astype(float) * 1e9).astype(np.int64)
    hi, lo = trace_ids(1, column["step"])
    count = len(start)
    builder.append(
        count,
        trace_hi=hi,
        trace_lo=lo,
        span_id=span_ids(lo, column["rank"], np.arange(count)),
        start_ns=start,
        duration_ns=np.round(column["duration"].astype(float) * 1e9).astype(np.int64),
        name=[builder.strings.add(n) for n in names],
        kind=np.where(
            [n.endswith("-compute") for n in names], SpanKind.KERNEL, SpanKind.COLLECTIVE
        ),
        resource=np.searchsorted(ranks, column["rank"]),
        step=column["step"],
        stream=[0 if n.endswith("-compute") else 1 + kinds[n] for n in names],
    )
    return builder.build()


@pytest.fixture(scope="module")
def table(traces: Path) -> SpanTable:
    return straggler(traces)


def test_the_last_stage_is_named_and_no_rank_of_another_stage(table: SpanTable) -> None:
    report = analyze(table, settings=OPERATIONS)
    imbalances = [i for i in report.incidents if i.kind == "imbalance"]
    (stage,) = imbalances
    assert stage.group == "pipeline stage 3"
    assert stage.culprit.ranks == []
    assert stage.scope == "group"
    assert stage.victims == [0, 1, 2, 3, 4, 5]
    assert stage.component == "software"
    assert "ranks 6-7" in stage.evidence[0].text
    # upstream's label: forward 0.139 s against 0.067 s, backward less so
    assert stage.evidence[0].value == pytest.approx(2.0, abs=0.4)


def test_no_rank_is_blamed_for_its_stage(table: SpanTable) -> None:
    report = analyze(table, settings=OPERATIONS)
    for incident in report.incidents:
        if incident.kind == "imbalance":
            continue
        assert incident.kind not in ("slow_rank", "slow_kernel")
    assert any("classes of different work" in note for note in report.coverage.notes)


def test_a_kernel_of_several_modes_says_nothing_of_a_stage() -> None:
    """One kernel serves matrices of different depth, of which stages have different shares."""
    builder = SpanTableBuilder()
    for rank in range(4):
        builder.add_resource(Resource(rank=rank, world_size=4, pp=rank // 2))
    gemm = builder.strings.add("deep_gemm::sm90_fp8_gemm_1d2d_impl")
    long_of = {0: 14, 1: 6}  # of twenty kernels of either stage: so their medians differ
    for rank in range(4):
        duration = np.full(20, 25_000)
        duration[: long_of[rank // 2]] = 50_000
        builder.append(
            20,
            trace_hi=np.ones(20, np.uint64),
            trace_lo=np.ones(20, np.uint64),
            span_id=np.arange(20) + 1 + 20 * rank,
            start_ns=1_000_000 + np.cumsum(duration) - duration,
            duration_ns=duration,
            name=np.full(20, gemm),
            kind=np.full(20, SpanKind.KERNEL),
            resource=np.full(20, rank),
            step=np.zeros(20, np.int64),
            stream=np.zeros(20, np.int64),
        )
    report = analyze(builder.build())
    assert [i.kind for i in report.incidents] == []
