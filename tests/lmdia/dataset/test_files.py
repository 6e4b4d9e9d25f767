"""A case on disk says what was played: spans, ids of the changed ones, metrics, logs, truth."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kat_otel.errors import ConfigError
from kat_otel.lmdia.dataset.files import has_case, read_label, write_case
from kat_otel.lmdia.dataset.played import PlayedStep, affected_ids
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.hardware import Machines, Request
from kat_otel.lmdia.inject import slow_rank
from kat_otel.lmdia.label import Label
from kat_otel.lmdia.recording import ZERO_UNIX_NS
from kat_otel.lmdia.replay import simulate
from kat_otel.lmdia.table import to_table
from kat_otel.readers import read
from kat_otel.spans import Resource, SpanTable

pq: Any = pytest.importorskip("pyarrow.parquet")

PROGRAM = decode_program(replace(LLAMA_70B, layers=2), workers(4, instance="case"))
FAULT = slow_rank(PROGRAM, 2, 50.0)
LABEL = Label(case="c", task="t", part="healthy", scenario="healthy", steps=(0, 1), warm_up=1)


@dataclass(frozen=True)
class Two:
    """A healthy step, and one with a fault."""

    label: Label = LABEL
    workers: Sequence[Resource] = PROGRAM.resources

    def steps(self) -> Iterator[PlayedStep]:
        for number, program in enumerate((PROGRAM, FAULT.program)):
            zero = ZERO_UNIX_NS + number * 10**9
            table = to_table(program, simulate(program), step=number, zero_unix_ns=zero, nonce=1)
            ids = affected_ids(program, table, FAULT.fault.affected)
            yield PlayedStep(number, table, (ids[: number * len(ids)],))

    def requests(self) -> Iterator[Request]:
        machines = Machines(
            PROGRAM.resources, "xid_ecc", 2, ZERO_UNIX_NS, ZERO_UNIX_NS, ZERO_UNIX_NS + 10**10
        )
        return machines.requests()


def _messages(path: Path) -> list[bytes]:
    data = gzip.decompress(path.read_bytes())
    found: list[bytes] = []
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def _played() -> list[SpanTable]:
    return [step.table for step in Two().steps()]


def _rank(table: SpanTable, resource: int) -> int:
    return table.resources[resource].rank


def test_what_was_played_is_read_back(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    spans = write_case(Two(), folder)
    assert has_case(folder)
    assert read_label(folder) == LABEL
    back = read([folder])
    assert not back.errors
    assert len(back.table) == spans == sum(len(t) for t in _played())
    played = np.concatenate([t.span_id for t in _played()])
    assert set(back.table.span_id.tolist()) == set(played.tolist())
    assert int(back.table.duration_ns.sum()) == sum(int(t.duration_ns.sum()) for t in _played())


def test_tables_have_a_row_a_span(tmp_path: Path) -> None:
    write_case(Two(), tmp_path / "c")
    rows = pq.read_table(tmp_path / "c/traces.parquet").to_pydict()
    tables = _played()
    assert rows["span_id"] == [i for t in tables for i in t.span_id.tolist()]
    names = [t.strings[i] for t in tables for i in t.name.tolist()]
    assert rows["name"] == names
    ranks = [_rank(t, i) for t in tables for i in t.resource.tolist()]
    assert rows["rank"] == ranks


def test_changed_spans_are_the_culprits_longer_ones(tmp_path: Path) -> None:
    write_case(Two(), tmp_path / "c")
    changed = set(pq.read_table(tmp_path / "c/affected.parquet")["span_id"].to_pylist())
    table = _played()[1]
    rows = np.flatnonzero(np.isin(table.span_id, np.array(sorted(changed), np.uint64)))
    assert {_rank(table, i) for i in table.resource[rows].tolist()} == {2}
    work = rows[table.on_gpu[rows]]
    assert len(work) == int(FAULT.fault.affected.sum())
    assert not any("all_reduce" in table.strings[i].lower() for i in table.name[work].tolist())


def test_metrics_and_logs_lie_beside_on_the_same_clock(tmp_path: Path) -> None:
    write_case(Two(), tmp_path / "c", parquet=False)
    asked = list(Two().requests())
    for signal in ("metrics", "logs"):
        found = _messages(tmp_path / f"c/{signal}.otlp.gz")
        assert found == [r.data for r in asked if r.signal == signal] != []
    assert not (tmp_path / "c/traces.parquet").exists()


def _bytes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".parquet")
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_case_makes_the_same_bytes_and_rows(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_case(Two(), tmp_path / name)
    sums = [_bytes(tmp_path / name) for name in ("a", "b")]
    assert sums[0] == sums[1]
    assert len(sums[0]) == 4
    for table in ("traces", "affected"):
        one, two = (pq.read_table(tmp_path / n / f"{table}.parquet") for n in ("a", "b"))
        assert one.equals(two)


def test_half_of_a_case_is_none_and_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    write_case(Two(), folder)
    (folder / "label.json").unlink()
    (folder / "left-over").write_text("of the first try")
    assert not has_case(folder)
    with pytest.raises(ConfigError, match=r"label\.json"):
        read_label(folder)
    write_case(Two(), folder)
    assert has_case(folder)
    assert not (folder / "left-over").exists()


def test_a_broken_label_is_named(tmp_path: Path) -> None:
    (tmp_path / "label.json").write_text('{"case": 1}')
    with pytest.raises(ConfigError, match=r"label\.json: no label of a case"):
        read_label(tmp_path)
