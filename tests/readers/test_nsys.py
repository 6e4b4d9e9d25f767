"""Nsight Systems exports of any age; several processes and devices in one file."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from kat_otel.readers import read
from kat_otel.spans import SpanKind

PID = [(100 + k) << 24 for k in range(3)]
UTC, SYSTEM = 1_700_000_000_000_000_000, 5_000_000


def export(path, *, old=False, start=SYSTEM):
    """Two processes, a device each, with the same correlation ids; a third that drives none."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE StringIds (id INTEGER, value TEXT)")
        names = ["gemm<int>", "cudaLaunchKernel_v7000", "cudaStreamSynchronize_v3020", "forward"]
        db.executemany("INSERT INTO StringIds VALUES (?, ?)", enumerate(names))
        extra = "" if old else ", globalPid, graphNodeId"
        db.execute(
            "CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start, end, deviceId, streamId, "
            f"correlationId, shortName, gridX, gridY, gridZ, blockX, blockY, blockZ{extra})"
        )
        db.execute(
            "CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME "
            "(start, end, globalTid, correlationId, nameId)"
        )
        db.execute("CREATE TABLE NVTX_EVENTS (start, end, eventType, text, globalTid, textId)")
        db.execute(
            "CREATE TABLE CUPTI_ACTIVITY_KIND_SYNCHRONIZATION "
            "(start, end, deviceId, streamId, correlationId, globalPid, syncType)"
        )
        for device in range(1 if old else 2):
            db.execute(  # the export says device 0 whatever the device
                "INSERT INTO CUPTI_ACTIVITY_KIND_SYNCHRONIZATION VALUES (?, ?, 0, 7, 2, ?, 3)",
                (start + 61, start + 94, PID[device]),
            )
            tid = PID[device] + 7
            values = [start + 50, start + 90, device, 7 + device, 1, 0, 4, 2, 1, 128, 1, 1]
            values += [] if old else [PID[device], None]
            marks = ",".join("?" * len(values))
            db.execute(f"INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES ({marks})", values)
            db.executemany(
                "INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?, ?, ?, ?, ?)",
                [(start + 20, start + 25, tid, 1, 1), (start + 60, start + 95, tid, 2, 2)],
            )
            db.executemany(
                "INSERT INTO NVTX_EVENTS VALUES (?, ?, 59, ?, ?, ?)",
                [
                    (start + 10, start + 99, None, tid, 3),
                    (start + 15, start + 40, "aten::mm, op_id = 9", tid, None),
                    (start + 15, None, "a mark", tid, None),
                ],
            )
        if not old:
            db.execute(
                "INSERT INTO NVTX_EVENTS VALUES (?, ?, 59, 'elsewhere', ?, NULL)",
                (start, start + 5, PID[2] + 1),
            )
            db.execute("CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs, systemClockNs)")
            db.execute("INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (?, ?)", (UTC, SYSTEM))
        db.commit()
    return path


def names_up(table, row):
    path = []
    while row >= 0:
        path.append(table.name_of(row))
        row = int(table.parent[row])
    return path


@pytest.fixture
def two(tmp_path):
    return read([export(tmp_path / "report.sqlite")])


def test_every_process_keeps_its_own_correlation_ids_and_tree(two):
    table = two.table
    kernels = np.flatnonzero(table.kind == SpanKind.KERNEL)
    assert [table.resources[r].device for r in table.resource[kernels]] == [0, 1]
    for row in kernels:
        path = ["gemm<int>", "cudaLaunchKernel", "aten::mm", "forward", "worker step"]
        assert names_up(table, row) == path
        tree = [row]
        while table.parent[tree[-1]] >= 0:
            tree.append(table.parent[tree[-1]])
        assert len(set(table.resource[tree].tolist())) == 1


def test_the_device_stands_for_the_rank(two):
    assert [(r.rank, r.device) for r in two.table.resources] == [(0, 0), (1, 1)]


def test_sizes_and_kinds(two):
    table = two.table
    row = int(np.flatnonzero(table.kind == SpanKind.KERNEL)[0])
    assert (table.text(table.grid[row]), table.text(table.block[row])) == ("4,2,1", "128,1,1")
    waits = np.flatnonzero(table.kind == SpanKind.SYNC)
    assert {table.name_of(w) for w in waits} == {"cudaStreamSynchronize", "Stream Sync"}
    assert {table.name_of(w): table.rank[w] for w in waits if table.rank[w]} == {
        "cudaStreamSynchronize": 1,
        "Stream Sync": 1,
    }


def test_a_process_without_a_device_is_left_out_with_a_note(two):
    assert all(two.table.name_of(row) != "elsewhere" for row in range(len(two.table)))
    assert any("1 host spans of processes that drive no GPU" in note for note in two.notes)


@pytest.mark.parametrize(
    ("start", "unix"),
    [(SYSTEM + 1000, UTC + 1000), (1000, UTC + 1000)],
    ids=["the system's clock goes on", "counted from the session's start"],
)
def test_times_are_unix_nanoseconds(tmp_path, start, unix):
    table = read([export(tmp_path / "report.sqlite", start=start)]).table
    assert table.start_ns[table.kind == SpanKind.KERNEL][0] == unix + 50


def test_an_export_without_newer_columns_and_tables_is_read_for_what_it_has(tmp_path):
    result = read([export(tmp_path / "old.sqlite", old=True)])
    table = result.table
    assert not result.errors
    [row] = np.flatnonzero(table.kind == SpanKind.KERNEL)
    assert names_up(table, row)[1] == "cudaLaunchKernel"
    assert any("times are relative" in note for note in result.notes)


def test_a_gzipped_export_is_read_and_its_copy_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    plain = export(tmp_path / "report.sqlite")
    packed = tmp_path / "packed.sqlite.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert len(read([packed]).table) == len(read([plain]).table)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_truncated_database_is_refused_with_the_byte(tmp_path):
    data = export(tmp_path / "report.sqlite").read_bytes()
    cut = tmp_path / "cut.sqlite"
    cut.write_bytes(data[: len(data) // 2])
    [error] = read([cut]).errors
    assert "truncated" in error.problem
    assert error.place == f"byte {len(data) // 2:,}"


def test_another_database_is_foreign(tmp_path):
    with closing(sqlite3.connect(tmp_path / "x.sqlite")) as db:
        db.execute("CREATE TABLE books (title)")
        db.commit()
    [error] = read([tmp_path / "x.sqlite"]).errors
    assert "no export of Nsight Systems" in error.problem


def test_a_value_that_is_no_number_names_the_table(tmp_path):
    path = export(tmp_path / "report.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET streamId = 'seven'")
        db.commit()
    [error] = read([path]).errors
    assert error.place == "table CUPTI_ACTIVITY_KIND_KERNEL"


def test_a_range_named_in_bytes_that_are_no_text_stops_nothing(tmp_path):
    path = export(tmp_path / "report.sqlite")
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE StringIds SET value = CAST(X'66FF' AS TEXT) WHERE value = 'forward'")
        db.commit()
    result = read([path])
    assert not result.errors
    assert any(text == "f\ufffd" for text in result.table.strings)


def test_a_single_device_takes_the_rank_of_the_environment(tmp_path):
    path = export(tmp_path / "report.sqlite", old=True)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE META_DATA_CAPTURE (name, value)")
        db.executemany(
            "INSERT INTO META_DATA_CAPTURE VALUES ('PROCESS_0:ENVIRONMENT_VARIABLE', ?)",
            [('RANK="5"',), ('WORLD_SIZE="8"',)],
        )
        db.commit()
    resource = read([path]).table.resources[0]
    assert (resource.rank, resource.world_size) == (5, 8)
