"""OTLP files: what was written is what is read, over any split into messages and files."""

from __future__ import annotations

import base64
import gzip
import json
import struct

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel.otlp.encode import encode_traces
from kat_otel.readers import read
from kat_otel.spans import NO_PARENT, SpanKind, SpanTable
from tests.readers.chrome import host, kernel, launch, trace, write

STEP = [host("op", 0, 20), launch(1, 1), kernel(10, 1), launch(5, 2), kernel(16, 2)]


@pytest.fixture
def table(tmp_path) -> SpanTable:
    (tmp_path / "in").mkdir()
    for rank in range(2):
        write(tmp_path / "in" / f"{rank}.json", trace(STEP, rank=rank))
    return read([tmp_path / "in"]).table


def messages(table: SpanTable, parts: int) -> list[bytes]:
    rows = [np.arange(part, len(table), parts) for part in range(parts)]
    return [data for some in rows for data in encode_traces(table, some)]


def prefixed(parts: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def as_json(data: bytes) -> dict:
    def hex_ids(node):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if key in ("traceId", "spanId", "parentSpanId"):
                node[key] = base64.b64decode(value).hex()
            elif isinstance(value, (dict, list)):
                hex_ids(value)

    whole = MessageToDict(ExportTraceServiceRequest.FromString(data))
    hex_ids(whole)
    return whole


def facts(table: SpanTable) -> list[tuple]:
    parent = np.where(table.parent >= 0, table.span_id[table.parent], 0)
    columns = (table.span_id, table.trace_lo, parent, table.start_ns, table.duration_ns,
               table.kind, table.step, table.rank, table.stream)  # fmt: skip
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("name", ["a.binpb", "a.pb.gz", "a.jsonl", "a.json.gz"])
def test_what_was_written_is_read_back(tmp_path, table, parts, name):
    data = messages(table, parts)
    if ".js" in name:
        content = b"\n".join(json.dumps(as_json(part)).encode() for part in data) + b"\n"
    else:
        content = prefixed(data)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    result = read([path])
    assert not result.errors
    assert facts(result.table) == facts(table)
    assert sorted(r.rank for r in result.table.resources) == [0, 1]


def test_parents_in_another_file_are_found(tmp_path, table):
    for at, data in enumerate(messages(table, 2)):
        (tmp_path / f"{at}.binpb").write_bytes(prefixed([data]))
    result = read([tmp_path / "0.binpb", tmp_path / "1.binpb"])
    assert facts(result.table) == facts(table)


def test_one_message_without_length_and_one_indented_document(tmp_path, table):
    [data] = messages(table, 1)
    (tmp_path / "a.pb").write_bytes(data)
    (tmp_path / "a.json").write_text(json.dumps(as_json(data), indent=2))
    assert facts(read([tmp_path / "a.pb"]).table) == facts(table)
    assert facts(read([tmp_path / "a.json"]).table) == facts(table)


def test_gpu_work_without_a_parent_id_is_joined_by_correlation(tmp_path, table):
    loose = np.where(table.on_gpu, 0, table.parent_id).astype(np.uint64)
    bare = table.with_columns(
        parent_id=loose, parent=np.where(table.on_gpu, NO_PARENT, table.parent)
    )
    path = tmp_path / "a.binpb"
    path.write_bytes(prefixed(messages(bare, 1)))
    got = read([path]).table
    work = np.flatnonzero(got.on_gpu)
    assert (got.kind[got.parent[work]] == SpanKind.LAUNCH).all()
    assert facts(got) == facts(table)


def test_a_cut_file_is_an_error_with_its_place_and_its_whole_messages_are_used(tmp_path, table):
    content = prefixed(messages(table, 2))
    path = tmp_path / "a.binpb"
    path.write_bytes(content[:-10])
    result = read([path])
    [error] = result.errors
    assert "cut off" in error.problem
    assert error.place.startswith("byte ")
    assert 0 < len(result.table) < len(table)


def test_a_broken_line_is_named(tmp_path, table):
    good = json.dumps(as_json(messages(table, 1)[0]))
    path = write(tmp_path / "a.jsonl", (good + "\n" + good[:-30]).encode())
    result = read([path])
    [error] = result.errors
    assert error.place == "line 2"
    assert len(result.table) == len(table)
