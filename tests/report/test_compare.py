from __future__ import annotations

import pytest

from kat_otel.kernels import family
from kat_otel.report.compare import compare_kernels
from kat_otel.report.html import render_html
from kat_otel.spans import SpanTable, concat
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


def test_the_healthy_recording_tells_what_the_culprit_took_before(spans: SpanTable) -> None:
    healthy = spans.take(spans.rank != 3)  # rank 3 has the slow kernel: it was slower here
    compared = compare_kernels(spans, samples.slow_kernel(spans), spans)
    assert compared is not None
    assert compared.rows[0].before_ns == pytest.approx(compared.rows[0].culprit_ns)
    assert compared.total.before_ns == pytest.approx(compared.total.culprit_ns)
    without = compare_kernels(spans, samples.slow_kernel(spans), healthy)
    assert without is not None
    assert without.rows[0].before_ns is None, "the culprit is not in it"


def test_the_page_shows_the_history_as_a_third_bar(spans: SpanTable) -> None:
    report = samples.report(spans, samples.slow_kernel(spans))
    assert "rank 3 in the healthy recording" in render_html(report, spans, spans)
    assert "in the healthy recording" not in render_html(report, spans)


def test_without_a_healthy_recording_the_other_steps_are_the_history(spans: SpanTable) -> None:
    before = spans.with_columns(step=spans.step - 1, start_ns=spans.start_ns - 100_000_000)
    both = concat([before, spans])
    report = samples.report(spans, samples.slow_kernel(spans))
    assert "rank 3 in its other steps" in render_html(report, both)
