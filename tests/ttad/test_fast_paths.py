"""What is done the quick way for the usual step is what the long way says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.kernels import classify
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import slow_rank
from kat_otel.lmdia.recording import Group, record
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder
from kat_otel.ttad import Detector, align, lanes
from kat_otel.verdict import Report, to_json


@pytest.fixture(scope="module")
def steps() -> list[SpanTable]:
    """Healthy and faulty steps of four ranks, which all run the same."""
    program = decode_program(replace(LLAMA_70B, layers=6), workers(4))
    slow = slow_rank(program, 2, 15).program
    whole = record(Group(program, 3), range(14), program_at=lambda s: slow if s > 10 else program)
    return [whole.take(whole.step == step) for step in range(14)]


def verdicts(steps: list[SpanTable]) -> list[bytes]:
    judge = Detector()
    reports: list[Report] = [judge.judge(step) for step in steps]
    assert any(report.incidents for report in reports[11:])
    assert not any(report.incidents for report in reports[:11])
    return [to_json(report) for report in reports]


def test_matching_lanes_as_a_whole_gives_the_verdicts_of_aligning_them(
    steps: list[SpanTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = verdicts(steps)
    monkeypatch.setattr("kat_otel.ttad.align.alike", lambda *_: False)
    assert verdicts(steps) == quick


def test_rows_in_any_order_give_the_same_alignment(steps: list[SpanTable]) -> None:
    table, meaning = classify(steps[0])
    mixed = np.random.default_rng(5).permutation(len(table))
    other = align.align(table.take(mixed), meaning[mixed])
    one = align.align(table, meaning)
    assert np.array_equal(mixed[other.rows], one.rows)
    assert other.signature() == one.signature()


@st.composite
def scattered(draw: st.DrawFn) -> SpanTable:
    """Spans of some ranks on some streams, in any order, many at the same time."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count, ranks = draw(st.integers(1, 200)), draw(st.integers(1, 5))
    builder = SpanTableBuilder()
    for resource in range(ranks + 2):  # two resources may be of one rank
        builder.add_resource(Resource(rank=resource % ranks * 3 - 1))
    builder.append(
        count,
        start_ns=rng.integers(0, draw(st.sampled_from([3, 10_000])), count),
        kind=rng.choice([SpanKind.LAUNCH, SpanKind.KERNEL, SpanKind.MEMCPY], count),
        resource=rng.integers(0, ranks + 2, count),
        stream=rng.integers(-1, draw(st.sampled_from([0, 4, 100])), count),
    )
    return builder.build()


@given(scattered())
@settings(max_examples=150, deadline=None)
def test_lanes_are_what_sorting_by_rank_stream_and_start_gives(table: SpanTable) -> None:
    found = lanes.lanes(table)
    gpu = np.flatnonzero(table.on_gpu)
    order = np.lexsort((table.start_ns[gpu], table.stream[gpu], table.rank[gpu]))
    assert found.rows.tolist() == gpu[order].tolist()
    keys: list[Any] = list(
        dict.fromkeys(zip(table.rank[found.rows], table.stream[found.rows], strict=True))
    )
    assert found.stream.tolist() == [stream for _, stream in keys]
    assert found.begin[-1] == len(gpu)
    assert np.diff(found.first).tolist() == [
        len({s for r, s in keys if r == rank}) for rank in found.ranks
    ]


def test_a_rank_with_hundreds_of_streams_is_sorted_too() -> None:
    builder = SpanTableBuilder()
    builder.add_resource(Resource(rank=0))
    builder.append(300, start_ns=5, kind=SpanKind.KERNEL, stream=np.arange(300)[::-1])
    found = lanes.lanes(builder.build())
    assert found.stream.tolist() == list(range(300))
    assert found.rows.tolist() == list(range(299, -1, -1))
    assert found.first.tolist() == [0, 300]
