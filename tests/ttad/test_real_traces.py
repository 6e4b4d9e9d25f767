"""What the real traces must say: the culprit, the victims, and nothing where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from kat_otel.readers import read
from kat_otel.ttad import analyze
from kat_otel.verdict import Report


def judged(*paths: Path) -> Report:
    result = read(list(paths))
    assert not result.errors
    return analyze(result.table, files=result.files, notes=result.notes)


def blamed(report: Report) -> set[int]:
    return {rank for incident in report.incidents for rank in incident.culprit.ranks}


def test_dlrm_names_rank_7_late_with_normal_compute(traces: Path) -> None:
    report = judged(traces / "dlrm_8rank")
    (seven,) = [i for i in report.incidents if i.culprit.ranks == [7]]
    assert seven.kind == "late_launch"
    assert seven.component == "host_cpu"
    assert seven.culprit.sure
    assert seven.victims == [0, 1, 2, 3, 4, 5, 6]
    assert any("kernel time of rank 7 is normal" in e.text for e in seven.evidence)


def test_dlrm_names_ranks_4_and_5_together_for_the_last_collectives(traces: Path) -> None:
    report = judged(traces / "dlrm_8rank")
    (pair,) = [i for i in report.incidents if 4 in i.culprit.ranks]
    assert pair.culprit.ranks == [4, 5]
    assert 7 in pair.victims
    assert any("no. 6, 7, 8" in e.text for e in pair.evidence)


def test_dlrm_never_blames_the_ranks_that_wait_longest(traces: Path) -> None:
    assert not blamed(judged(traces / "dlrm_8rank")) & {1, 3}


def test_mfu_before_blames_device_1_and_device_0_is_its_victim(traces: Path) -> None:
    report = judged(traces / "nsys_h100_2gpu_mfu_before")
    assert report.incidents[0].culprit.ranks == [1]
    assert report.incidents[0].victims == [0]
    assert blamed(report) == {1}
    # read by hand from the 33 SendRecv: device 0 waits 10.9 ms for device 1 in all
    assert report.incidents[0].impact_ns == pytest.approx(10_900_000, rel=0.05)


def test_a_healthy_pair_of_gpus_has_no_incident(traces: Path) -> None:
    report = judged(traces / "nsys_h100_2gpu_wan_sp2")
    assert report.incidents == []
    assert report.abstained is None
    assert report.coverage.aligned >= 0.95 * report.coverage.kernels
    assert any("clocks" in note for note in report.coverage.notes)


def test_randomly_sampled_events_are_not_judged(traces: Path) -> None:
    report = judged(traces / "hta_sampled_2of128")
    assert report.abstained is not None
    assert report.abstained.reason == "not_alignable"
    assert "counterpart" in report.abstained.detail
    assert report.incidents == []


@pytest.mark.parametrize(
    "name",
    [
        "vllm_gptoss_b200_tp8_rank0",
        "tracelens_h100_qwen_single",
        "hta_ddp_rank1of2",
        "hta_nccl_data_rank0of2",
        "tracelens_mi300_graph_single/sglang_Qwen3-8B_decode.json.gz",
        "tracelens_mi300_graph_single/vllm_decode_full_graph_execution.json.gz",
    ],
)
def test_a_single_rank_is_compared_with_itself_and_says_so(traces: Path, name: str) -> None:
    report = judged(traces / name)
    assert any("peers are missing" in note for note in report.coverage.notes)
    for incident in report.incidents:
        assert incident.kind in ("slow_kernel", "slow_copy", "stall")
        assert not incident.culprit.sure
        assert incident.victims == []


def test_kernels_under_one_graph_launch_are_told_apart(traces: Path) -> None:
    table = read([traces / "tracelens_mi300_graph_single/sglang_Qwen3-8B_decode.json.gz"]).table
    report = analyze(table)
    assert report.coverage.kernels == 558  # 555 kernels and 3 copies
    assert report.coverage.aligned == 558


def test_kernels_without_a_launch_record_are_counted(traces: Path) -> None:
    report = judged(traces / "tracelens_h100_qwen_single")
    assert any("436 of 1,465 kernels" in note for note in report.coverage.notes)
