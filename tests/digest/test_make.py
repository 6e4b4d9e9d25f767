"""What a digest says is what the spans of the step say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kat_otel import semconv
from kat_otel.digest import (
    MAX_BYTES,
    class_hash,
    decode,
    digest_of,
    encode,
    names_text,
    with_digests,
)
from kat_otel.kernels import family, semantics
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.recording import Group, record
from kat_otel.readers import read
from kat_otel.spans import SpanKind, SpanTable


@pytest.fixture(scope="module")
def table() -> SpanTable:
    """Two steps of eight ranks that decode."""
    program = decode_program(replace(LLAMA_70B, layers=4), workers(8, instance="i"))
    return record(Group(program, 1), [0, 1])


@pytest.fixture(scope="module")
def rows(table: SpanTable) -> np.ndarray:
    """The spans of rank 3 in step 1."""
    return np.flatnonzero((table.rank == 3) & (table.step == 1))


def test_kernel_classes_have_the_time_and_count_of_their_kernels(
    table: SpanTable, rows: np.ndarray
) -> None:
    digest = digest_of(table, rows)
    time: dict[int, int] = {}
    count: dict[int, int] = {}
    for row in rows[table.on_gpu[rows]].tolist():
        name = table.name_of(row)
        if not semantics(name) and table.kind[row] == SpanKind.KERNEL:
            key = class_hash(family(name))
            time[key] = time.get(key, 0) + int(table.duration_ns[row])
            count[key] = count.get(key, 0) + 1
    assert dict(zip(digest.classes.tolist(), digest.time.sum(axis=1), strict=True)) == time
    assert dict(zip(digest.classes.tolist(), digest.count.sum(axis=1), strict=True)) == count
    assert digest.kernels == sum(count.values())
    assert (digest.longest * digest.count >= digest.time).all()


def test_collectives_stand_in_launch_order_with_their_times(
    table: SpanTable, rows: np.ndarray
) -> None:
    digest = digest_of(table, rows)
    met = rows[table.kind[rows] == SpanKind.COLLECTIVE]
    met = met[np.argsort(table.start_ns[table.parent[met]], kind="stable")]
    begin = int(table.start_ns[rows[0]])
    assert digest.start_ns == begin
    assert (digest.ends == table.end_ns[met] - begin).all()
    assert (digest.arrivals == table.start_ns[met] - begin).all()
    assert (digest.lead == table.start_ns[met] - table.start_ns[table.parent[met]]).all()
    names = [digest.names[int(digest.whats["family"][w])] for w in digest.what]
    assert names == [family(table.name_of(row)) for row in met.tolist()]
    assert set(digest.whats["group"][digest.what].tolist()) == {class_hash("tp")}


def test_launch_gaps_and_copies(table: SpanTable, rows: np.ndarray) -> None:
    digest = digest_of(table, rows)
    launches = rows[table.kind[rows] == SpanKind.LAUNCH]
    launches = launches[np.argsort(table.start_ns[launches])]
    gaps = table.start_ns[launches][1:] - table.end_ns[launches][:-1]
    assert (digest.launches, digest.gap_ns) == (len(launches), int(gaps.sum()))
    assert digest.gap_max_ns == int(gaps.max())
    copies = rows[table.kind[rows] == SpanKind.MEMCPY]
    to_device = [row for row in copies.tolist() if "HtoD" in table.name_of(row)]
    assert digest.copies.tolist() == [len(to_device), len(copies) - len(to_device), 0, 0]
    assert digest.copy_bytes[0] == table.bytes[to_device].sum()
    assert digest.copy_ns.sum() == table.duration_ns[copies].sum()


def test_ranks_of_a_group_agree_on_order_and_layout(table: SpanTable) -> None:
    step = [digest_of(table, (table.rank == r) & (table.step == 0)) for r in range(8)]
    assert len({(d.order, d.classes.tobytes(), d.blocks) for d in step}) == 1
    assert len({len(encode(d)) for d in step}) == 1


def test_a_digest_without_launches_says_that_leads_are_not_known(table: SpanTable) -> None:
    rows = np.flatnonzero((table.rank == 3) & (table.step == 1))
    bare = rows[table.kind[rows] != SpanKind.LAUNCH]
    digest = digest_of(table.take(bare))
    assert (digest.lead == -1).all()
    assert (decode(encode(digest)).lead == -1).all()


def test_nothing_has_no_digest(table: SpanTable) -> None:
    with pytest.raises(ValueError, match="there are none"):
        digest_of(table, np.zeros(len(table), np.bool_))


def test_worker_steps_carry_digests_and_kept_steps_stay_whole(table: SpanTable) -> None:
    sent = with_digests(table, keep=table.step == 1)
    assert (sent.kind[sent.step == 0] == SpanKind.WORKER_STEP).all()
    assert (sent.step == 1).sum() == (table.step == 1).sum()
    for row in np.flatnonzero(sent.kind == SpanKind.WORKER_STEP).tolist():
        said = sent.attributes[row]
        mine = (sent.rank == sent.rank[row]) & (sent.step == sent.step[row])
        assert said[semconv.SPAN_COUNT] == mine.sum()
        assert isinstance(said[semconv.DIGEST], bytes)
        assert (semconv.DIGEST_NAMES in said) == (sent.step[row] == 0)


def test_names_are_a_line_each() -> None:
    assert names_text({255: "gemm", 16: "x" * 500}).splitlines() == [
        "00000010 " + "x" * 120,
        "000000ff gemm",
    ]


@pytest.mark.parametrize(
    "folder", ["dlrm_8rank", "nsys_h100_2gpu_wan_sp2", "vllm_gptoss_b200_tp8_rank0"]
)
def test_real_steps_fit_without_merging_collectives(traces: Path, folder: str) -> None:
    table = read([traces / folder]).table
    for rank in np.unique(table.rank).tolist():
        for step in np.unique(table.step[table.rank == rank]).tolist():
            data = encode(digest_of(table, (table.rank == rank) & (table.step == step)))
            assert len(data) <= MAX_BYTES
            assert decode(data).merged == 1
