"""The real traces hold what their index says, and each is a sound forest of spans."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kat_otel.readers import ReadResult, read
from kat_otel.spans import COLUMNS, SpanKind, SpanTable

FOLDERS = (
    "dlrm_8rank",
    "nsys_h100_2gpu_wan_sp2",
    "nsys_h100_2gpu_mfu_before",
    "vllm_gptoss_b200_tp8_rank0",
    "tracelens_mi300_graph_single",
    "tracelens_h100_qwen_single",
    "hta_sampled_2of128",
    "hta_ddp_rank1of2",
    "hta_nccl_data_rank0of2",
)


@pytest.fixture(scope="module")
def every(traces: Path) -> dict[str, ReadResult]:
    return {folder: read([traces / folder]) for folder in FOLDERS}


def kernels(table: SpanTable) -> np.ndarray:
    return (table.kind == SpanKind.KERNEL) | (table.kind == SpanKind.COLLECTIVE)


def kernels_of_rank(table: SpanTable) -> list[int]:
    return [
        int(np.count_nonzero(kernels(table) & (table.rank == r))) for r in np.unique(table.rank)
    ]


def named(table: SpanTable, part: str) -> np.ndarray:
    has = np.array([part in text for text in table.strings])
    return kernels(table) & has[table.name]


def with_launch(table: SpanTable) -> np.ndarray:
    return (table.parent >= 0) & (table.kind[table.parent] == SpanKind.LAUNCH)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_trace_is_a_sound_forest(every, folder):
    result = every[folder]
    table = result.table
    assert not result.errors
    assert {name: getattr(table, name).dtype for name in COLUMNS} == {
        name: column.dtype for name, column in COLUMNS.items()
    }
    assert len(np.unique(table.span_id)) == len(table)
    assert (table.duration_ns >= 0).all()
    assert (table.step >= 0).all()
    roots = table.parent < 0
    assert (table.kind[roots] == SpanKind.WORKER_STEP).all()
    child, parent = np.flatnonzero(~roots), table.parent[~roots]
    assert (table.parent_id[child] == table.span_id[parent]).all()
    assert (table.trace_lo[child] == table.trace_lo[parent]).all()
    assert (table.rank[child] == table.rank[parent]).all()
    assert not table.on_gpu[parent].any()
    jump = np.append(table.parent, np.int32(-1))
    for _ in range(12):  # 2^12 levels: nothing is its own ancestor
        jump = jump[jump]
    assert (jump == -1).all()


def test_dlrm_has_eight_ranks_of_one_step_in_microseconds(every):
    table = every["dlrm_8rank"].table
    assert sorted(r.rank for r in table.resources) == list(range(8))
    assert {r.resolution_ns for r in table.resources} == {1000}
    counts = kernels_of_rank(table)
    assert (min(counts), max(counts)) == (245, 315)
    unlaunched = kernels(table) & ~with_launch(table)
    assert Counter(table.rank[unlaunched].tolist()) == {1: 64, 3: 64}
    assert len(np.unique(table.trace_lo)) == 1


def test_wan_has_the_same_kernels_on_both_devices(every):
    assert kernels_of_rank(every["nsys_h100_2gpu_wan_sp2"].table) == [1721, 1721]


def test_mfu_has_33_send_receives_a_device(every):
    table = every["nsys_h100_2gpu_mfu_before"].table
    assert Counter(table.rank[named(table, "SendRecv")].tolist()) == {0: 33, 1: 33}
    assert {r.host for r in table.resources} == {"modal"}


def test_vllm_is_python_over_op_over_launch_over_kernel_in_nanoseconds(every):
    table = every["vllm_gptoss_b200_tp8_rank0"].table
    assert kernels_of_rank(table) == [768]
    assert np.count_nonzero(named(table, "multimem_all_reduce")) == 73
    assert {(r.rank, r.world_size, r.resolution_ns) for r in table.resources} == {(0, 8, 1)}
    [gather] = np.flatnonzero(table.kind == SpanKind.COLLECTIVE)
    assert table.text(table.group[gather]) == "3[0,1,2,3,4,5,6,7]"
    assert table.bytes[gather] == 25136 * 2
    row = int(np.flatnonzero(named(table, "multimem_all_reduce"))[0])
    path = []
    while row >= 0:
        path.append(SpanKind(int(table.kind[row])))
        row = int(table.parent[row])
    assert path[:2] == [SpanKind.COLLECTIVE if path[0] == 9 else SpanKind.KERNEL, SpanKind.LAUNCH]
    assert path[-1] == SpanKind.WORKER_STEP
    assert path.count(SpanKind.HOST_OP) > 3


def test_mi300_graphs_many_kernels_share_one_launch(every):
    table = every["tracelens_mi300_graph_single"].table
    launched = kernels(table) & with_launch(table)
    families = Counter(table.parent[launched].tolist())
    launch, count = families.most_common(1)[0]
    assert table.name_of(launch) == "hipGraphLaunch"
    assert count > 400


def test_h100_qwen_keeps_436_kernels_without_a_launch(every):
    result = every["tracelens_h100_qwen_single"]
    table = result.table
    assert np.count_nonzero(kernels(table)) == 1465
    assert np.count_nonzero(kernels(table) & ~with_launch(table)) == 436
    assert any("436 of 1,465" in note for note in result.notes)
    assert any("numbered 0 in order" in note for note in result.notes)


def test_ddp_has_five_repeated_steps(every):
    table = every["hta_ddp_rank1of2"].table
    assert kernels_of_rank(table) == [19370]
    steps, counts = np.unique(table.step[kernels(table)], return_counts=True)
    assert steps.tolist() == [2, 3, 4, 5, 6]
    # Of equal work; the first step also takes what was launched before it was marked.
    assert len(set(counts[1:-1].tolist())) == 1


def test_nccl_metadata_becomes_groups_and_bytes(every):
    table = every["hta_nccl_data_rank0of2"].table
    told = table.kind == SpanKind.COLLECTIVE
    assert np.count_nonzero(told) == 21
    assert {table.text(g) for g in np.unique(table.group[told])} == {"0[0,1]"}
    assert (table.bytes[told] > 0).all()


def test_one_of_eight_files_cut_in_half_still_gives_the_others(traces, tmp_path):
    for file in sorted((traces / "dlrm_8rank").iterdir()):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    victim = next(tmp_path.glob("worker5*"))
    text = gzip.decompress(victim.read_bytes())
    victim.write_bytes(gzip.compress(text[: len(text) // 2]))
    result = read([tmp_path])
    [error] = result.errors
    assert error.path == str(victim)
    counts = kernels_of_rank(result.table)
    assert sum(count >= 245 for count in counts) == 7
