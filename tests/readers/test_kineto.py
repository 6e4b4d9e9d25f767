"""Kineto files as they come: old and new clocks, silent ranks, odd rows, damage."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from kat_otel.identity import root_span_id
from kat_otel.readers import read
from kat_otel.spans import UNKNOWN, SpanKind
from tests.readers.chrome import host, kernel, launch, trace, write

STEP = [host("op", 0, 20), launch(1, 1), kernel(10, 1), launch(5, 2), kernel(16, 2)]


def rows(table, kind):
    return np.flatnonzero(table.kind == kind)


def names_up(table, row):
    path = []
    while row >= 0:
        path.append(table.name_of(row))
        row = int(table.parent[row])
    return path


def test_kernel_under_launch_under_operation_under_worker_step(tmp_path):
    table = read([write(tmp_path / "a.json", trace(STEP))]).table
    first = rows(table, SpanKind.KERNEL)[0]
    assert names_up(table, first) == ["gemm", "cudaLaunchKernel", "op", "worker step"]
    worker = rows(table, SpanKind.WORKER_STEP)
    assert len(worker) == 1
    assert table.start_ns[worker] == table.start_ns.min()
    assert table.end_ns[worker] == table.end_ns.max()
    assert table.parent_id[worker] == root_span_id(table.trace_lo[worker])
    children = table.parent >= 0
    assert (table.parent_id[children] == table.span_id[table.parent[children]]).all()
    assert len(np.unique(table.span_id)) == len(table)


def test_columns_of_a_kernel(tmp_path):
    event = kernel(10, 1, **{"graph id": 3, "graph node id": 2**40})
    table = read([write(tmp_path / "a.json", trace([launch(1, 1), event]))]).table
    row = rows(table, SpanKind.KERNEL)[0]
    assert (table.text(table.grid[row]), table.text(table.block[row])) == ("1,2,3", "32,1,1")
    assert (table.stream[row], table.correlation[row]) == (7, 1)
    assert (table.graph[row], table.graph_node[row]) == (3, 2**40)
    assert table.thread[row] == UNKNOWN


def test_a_collective_says_its_group_sequence_and_bytes(tmp_path):
    said = {
        "Collective name": "allreduce", "Process Group Name": "3", "Seq": 41,
        "Process Group Ranks": "[0, 1]", "In msg nelems": 1000, "dtype": "BFloat16",
    }  # fmt: skip
    table = read([write(tmp_path / "a.json", trace([kernel(1, 1, name="nccl", **said)]))]).table
    row = rows(table, SpanKind.COLLECTIVE)[0]
    assert table.text(table.group[row]) == "3[0,1]"
    assert (table.sequence[row], table.bytes[row]) == (41, 2000)


@pytest.mark.parametrize(
    ("ts", "base", "start_ns", "resolution"),
    [
        (1694128201422243, 0, 1694128201422243000, 1000),  # whole microseconds
        (1694128201422243.0, 0, 1694128201422243000, 1000),
        (1365627862757.064, 10**18, 10**18 + 1365627862757064, 1),  # counted from a base
        (6520618853487.683, 0, 6520618853487683, 1),
    ],
)
def test_clocks(tmp_path, ts, base, start_ns, resolution):
    file = write(tmp_path / "a.json", trace([kernel(ts, 1)], baseTimeNanoseconds=base))
    table = read([file]).table
    assert table.start_ns[rows(table, SpanKind.KERNEL)].tolist() == [start_ns]
    assert table.resources[0].resolution_ns == resolution


def test_absolute_nanoseconds_survive_although_a_float_cannot_hold_them(tmp_path):
    text = json.dumps(trace([kernel(111, 1), kernel(222, 1)]))
    text = text.replace("111", "1712345678901234.567").replace("222", "1712345678901235.001")
    table = read([write(tmp_path / "a.json", text.encode())]).table
    got = table.start_ns[rows(table, SpanKind.KERNEL)].tolist()
    assert got == [1712345678901234567, 1712345678901235001]


def test_a_list_without_an_object_around_it_is_read_too(tmp_path):
    table = read([write(tmp_path / "rank4.json.gz", STEP)]).table
    assert len(rows(table, SpanKind.KERNEL)) == 2
    assert table.resources[0].rank == 4


def test_a_missing_rank_comes_from_the_file_name_and_is_said(tmp_path):
    result = read([write(tmp_path / "worker3.json", trace(STEP, rank=None))])
    assert result.table.resources[0].rank == 3
    assert any("rank 3 is taken from the file name" in note for note in result.notes)


def test_what_the_file_says_after_its_events_counts_as_well(tmp_path):
    late = {"traceEvents": STEP, "distributedInfo": {"rank": 6, "world_size": 8}}
    resource = read([write(tmp_path / "a.json", late)]).table.resources[0]
    assert (resource.rank, resource.world_size) == (6, 8)


def test_odd_rows_are_counted_not_guessed_and_stop_nothing(tmp_path):
    odd = [
        kernel(1, 1, dur=-5),
        {k: v for k, v in kernel(1, 1).items() if k != "ts"},
        kernel("soon", 1),
        kernel(30, 1) | {"ts": None},
        {**kernel(1, 1), "name": None},
    ]
    result = read([write(tmp_path / "a.json", trace([*STEP, *odd]))])
    assert not result.errors
    assert len(rows(result.table, SpanKind.KERNEL)) == 2
    assert any("5 events left out" in note for note in result.notes)


def test_arguments_of_unexpected_types_cost_the_argument_not_the_event(tmp_path):
    strange = [
        kernel(10, 1) | {"args": {"correlation": 1, "stream": {"a": 1}, "grid": [1.5, "x"]}},
        kernel(16, 2) | {"args": "none"},
        kernel(17, 2) | {"args": {"correlation": 2**70}},
    ]
    result = read([write(tmp_path / "a.json", trace([launch(1, 1), *strange]))])
    work = rows(result.table, SpanKind.KERNEL)
    assert len(work) == 3
    assert result.table.correlation[work].tolist() == [1, UNKNOWN, UNKNOWN]


def test_kernels_without_a_launch_record_stay_and_are_counted(tmp_path):
    result = read([write(tmp_path / "a.json", trace([*STEP, kernel(2, 99)]))])
    lost = [r for r in rows(result.table, SpanKind.KERNEL) if result.table.correlation[r] == 99]
    assert names_up(result.table, lost[0]) == ["gemm", "worker step"]
    assert any("1 of 3 kernels have no launch record" in note for note in result.notes)


def test_equal_correlation_ids_of_two_files_do_not_join(tmp_path):
    a = write(tmp_path / "a.json", trace([launch(1, 1)], rank=0))
    b = write(tmp_path / "b.json", trace([kernel(10, 1)], rank=1))
    table = read([a, b]).table
    assert names_up(table, rows(table, SpanKind.KERNEL)[0]) == ["gemm", "worker step"]


def test_steps_are_marked_and_kernels_belong_to_the_step_that_launched_them(tmp_path):
    events = [
        host("ProfilerStep#7", 0, 50, cat="user_annotation"),
        host("ProfilerStep#8", 50, 50, cat="user_annotation"),
        launch(40, 1), kernel(60, 1),  # runs late, in the next step's time
        launch(55, 2), kernel(70, 2),
        kernel(75, 99),  # unlaunched: as the work before it on its stream
        host("main", 0, 100, tid=2),
        host("inner", 60, 5, tid=2),  # a frame over both steps is no parent in the second
    ]  # fmt: skip
    table = read([write(tmp_path / "a.json", trace(events))]).table
    work = rows(table, SpanKind.KERNEL)
    assert table.step[work].tolist() == [7, 8, 8]
    assert table.step[rows(table, SpanKind.WORKER_STEP)].tolist() == [7, 8]
    inner = next(r for r in range(len(table)) if table.name_of(r) == "inner")
    assert names_up(table, inner) == ["inner", "worker step"]
    has = np.flatnonzero(table.parent >= 0)
    assert (table.step[has] == table.step[table.parent[has]]).all()


def test_ranks_share_the_trace_of_a_step_and_nothing_else(tmp_path):
    files = [write(tmp_path / f"{r}.json", trace(STEP, rank=r)) for r in range(2)]
    table = read(files).table
    assert len(np.unique(table.trace_lo)) == 1
    assert len(np.unique(table.span_id)) == len(table)
    again = read(list(reversed(files))).table
    assert sorted(again.span_id.tolist()) == sorted(table.span_id.tolist())


def test_a_file_cut_in_half_is_an_error_with_its_place_and_its_first_half_is_used(tmp_path):
    whole = json.dumps(trace(STEP * 200)).encode()
    cut = write(tmp_path / "cut.json", whole[: len(whole) // 2])
    other = write(tmp_path / "whole.json", trace(STEP, rank=1))
    result = read([cut, other])
    assert [error.path for error in result.errors] == [str(cut)]
    assert "byte" in result.errors[0].place
    assert "truncated" in result.errors[0].problem
    assert result.errors[0].remedy
    assert 190 < len(rows(result.table, SpanKind.KERNEL)) < 210
    assert any("before the damage are read" in note for note in result.notes)
    assert {r.rank for r in result.table.resources} == {0, 1}


def test_a_gzip_cut_in_half_tells_the_byte_of_the_file(tmp_path):
    data = gzip.compress(json.dumps(trace(STEP * 2000)).encode())
    path = tmp_path / "cut.json.gz"
    path.write_bytes(data[: len(data) // 2])
    [error] = read([path]).errors
    assert f"byte {len(data) // 2:,} of the file" in error.place


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b'{"a": 1}', "no list of events"),
        (b"%PDF-1.7 not a trace", "not a trace"),
        (b'{"traceEvents": [', "truncated"),
        (b'{"traceEvents": [{"ph": "X"}] oops', "not JSON"),
    ],
)
def test_foreign_files_are_refused_with_a_remedy(tmp_path, content, problem):
    path = write(tmp_path / "x.json", content)
    result = read([path, write(tmp_path / "good.json", trace(STEP))])
    [error] = result.errors
    assert problem in str(error)
    assert error.remedy
    assert len(rows(result.table, SpanKind.KERNEL)) == 2


def test_a_folder_is_searched_and_what_is_no_trace_is_passed_over_with_a_note(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write(tmp_path / "deep" / "er" / "rank1.json.gz", trace(STEP, rank=1))
    write(tmp_path / "settings.json", {"a": 1})
    (tmp_path / "README.md").write_text("hello")
    result = read([tmp_path])
    assert not result.errors
    assert len(rows(result.table, SpanKind.KERNEL)) == 2
    assert any("README.md, settings.json" in note for note in result.notes)


def test_a_path_that_does_not_exist_is_an_error_not_a_crash(tmp_path):
    [error] = read([tmp_path / "nowhere.json"]).errors
    assert "does not exist" in error.problem
