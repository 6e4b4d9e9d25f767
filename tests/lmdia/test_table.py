"""The spans of a replayed step: the tree, the ids and the clock that a worker would send."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kat_otel import identity, semconv
from kat_otel.kernels import classify
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.replay import simulate
from kat_otel.lmdia.table import to_table
from kat_otel.spans import NO_PARENT, SpanKind, SpanTable

PROGRAM = decode_program(replace(LLAMA_70B, layers=3), workers(4, instance="tests"))
ZERO = 1_767_225_600_000_000_000


@pytest.fixture(scope="module")
def table() -> SpanTable:
    return to_table(PROGRAM, simulate(PROGRAM), step=5, zero_unix_ns=ZERO, nonce=99)


def test_every_gpu_span_hangs_under_launch_host_operation_and_worker_step(table: SpanTable) -> None:
    rows = np.flatnonzero(table.on_gpu)
    launch = table.parent[rows]
    host = table.parent[launch]
    assert (table.kind[launch] == SpanKind.LAUNCH).all()
    assert (table.kind[host] == SpanKind.HOST_OP).all()
    assert (table.correlation[launch] == table.correlation[rows]).all()
    while (table.kind[host] == SpanKind.HOST_OP).any():
        host = np.where(table.kind[host] == SpanKind.HOST_OP, table.parent[host], host)
    assert (table.kind[host] == SpanKind.WORKER_STEP).all()


def test_host_spans_contain_their_children(table: SpanTable) -> None:
    rows = np.flatnonzero((table.parent >= 0) & ~table.on_gpu)
    parent = table.parent[rows]
    assert (table.start_ns[parent] <= table.start_ns[rows]).all()
    assert (table.end_ns[parent] >= table.end_ns[rows]).all()


def test_the_worker_step_covers_everything_its_rank_did(table: SpanTable) -> None:
    for row in np.flatnonzero(table.kind == SpanKind.WORKER_STEP):
        mine = table.resource == table.resource[row]
        assert table.start_ns[row] == table.start_ns[mine].min()
        assert table.end_ns[row] == table.end_ns[mine].max()


def test_ranks_derive_the_same_trace_and_distinct_spans(table: SpanTable) -> None:
    hi, lo = identity.trace_ids(99, np.array([5]))
    assert (table.trace_hi == hi).all()
    assert (table.trace_lo == lo).all()
    assert len(np.unique(table.span_id)) == len(table)
    inner = table.parent != NO_PARENT
    assert (table.parent_id[inner] == table.span_id[table.parent[inner]]).all()
    assert (table.parent_id[~inner] == identity.root_span_id(lo)).all()


def test_the_worker_step_says_what_makes_the_step_complete(table: SpanTable) -> None:
    rows = np.flatnonzero(table.kind == SpanKind.WORKER_STEP)
    assert len(rows) == PROGRAM.ranks
    for row in rows.tolist():
        said = table.attributes[row]
        assert said[semconv.GROUP_SIZE] == PROGRAM.ranks
        assert said[semconv.SPAN_COUNT] == int((table.resource == table.resource[row]).sum())
        assert said[semconv.DROPPED_COUNT] == 0


def test_collectives_are_numbered_alike_on_all_ranks_and_go_on_in_the_next_step(
    table: SpanTable,
) -> None:
    numbers = [
        table.sequence[(table.kind == SpanKind.COLLECTIVE) & (table.rank == rank)].tolist()
        for rank in range(PROGRAM.ranks)
    ]
    assert all(other == numbers[0] for other in numbers)
    following = to_table(PROGRAM, simulate(PROGRAM), step=6)
    first = following.sequence[following.kind == SpanKind.COLLECTIVE].min()
    assert first == max(numbers[0]) + 1


def test_the_names_are_recognised_as_what_they_are(table: SpanTable) -> None:
    told, _ = classify(table)
    assert (told.kind == table.kind).all()


def test_one_rank_alone_is_what_it_was_among_all(table: SpanTable) -> None:
    alone = to_table(PROGRAM, simulate(PROGRAM), step=5, zero_unix_ns=ZERO, nonce=99, rows=[2])
    among = table.take(table.rank == 2)
    for column in ("start_ns", "duration_ns", "span_id", "parent_id", "correlation", "sequence"):
        assert (getattr(alone, column) == getattr(among, column)).all(), column


def test_times_are_cut_to_the_clocks_resolution() -> None:
    coarse = replace(PROGRAM, resolution_ns=1000)
    table = to_table(coarse, simulate(coarse), zero_unix_ns=ZERO)
    assert not (table.start_ns % 1000).any()
    assert not (table.duration_ns % 1000).any()
