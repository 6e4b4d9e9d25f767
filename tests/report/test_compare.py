from __future__ import annotations

import pytest

from kat_otel.kernels import family
from kat_otel.report.compare import compare_kernels
from kat_otel.spans import SpanTable
from tests.report import samples


def test_the_slow_kernel_of_the_culprit_stands_first(spans: SpanTable) -> None:
    compared = compare_kernels(spans, samples.slow_kernel(spans))
    assert compared is not None
    worst = compared.rows[0]
    assert worst.name == family(samples.GEMM)
    assert worst.difference_ns == pytest.approx(120 * samples.US, rel=0.05)
    assert worst.culprit_count == worst.peers_count == samples.LAYERS


def test_a_late_rank_computes_as_long_as_its_peers(spans: SpanTable) -> None:
    compared = compare_kernels(spans, samples.late_launch(spans))
    assert compared is not None
    assert compared.total.culprit_ns == pytest.approx(compared.total.peers_ns, rel=0.01)


def test_collectives_are_no_work(spans: SpanTable) -> None:
    compared = compare_kernels(spans, samples.late_launch(spans))
    assert compared is not None
    assert not any("nccl" in row.name for row in compared.rows)
    assert compared.families == 3


def test_without_peers_there_is_nothing_to_compare(spans: SpanTable) -> None:
    alone = spans.take(spans.rank == 7)
    assert compare_kernels(alone, samples.late_launch(spans)) is None
