"""Programs from traces: replaying them gives the trace back, and healing them removes lateness."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kat_otel.kernels import classify
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.extract import extract
from kat_otel.lmdia.fit_noise import fit
from kat_otel.lmdia.fitted import FITTED
from kat_otel.lmdia.inject import late_launches
from kat_otel.lmdia.merge import merge_orders
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.replay import simulate
from kat_otel.lmdia.semi import cloned, without_lateness
from kat_otel.lmdia.table import to_table
from kat_otel.readers import read
from kat_otel.spans import SpanKind, SpanTable

TOLERANCE_NS = 1.0
"""Replay is float64 nanoseconds from zero: exact but for rounding."""


@pytest.fixture(scope="module")
def vllm(traces: Path) -> SpanTable:
    return read([traces / "vllm_gptoss_b200_tp8_rank0"]).table


def _gpu_times(table: SpanTable, resource: int) -> tuple[np.ndarray, np.ndarray]:
    rows = (table.resource == resource) & table.on_gpu
    return np.sort(table.start_ns[rows]), np.sort(table.end_ns[rows])


@pytest.mark.parametrize("which", ["dlrm", "vllm"])
def test_an_unmodified_program_replays_the_traces_own_times(
    which: str, request: pytest.FixtureRequest
) -> None:
    table: SpanTable = request.getfixturevalue(which)
    program = extract(table)
    times = simulate(program)
    zero: int | None = None
    for row, resource in enumerate(program.resources):
        start, end = _gpu_times(table, table.resources.index(resource))
        here = ~np.isnan(times.gpu_start[row])
        assert here.sum() == len(start)
        replayed = np.sort(times.gpu_start[row, here]), np.sort(times.gpu_end[row, here])
        zero = (
            int(start[0]) - round(replayed[0][0]) if zero is None else zero
        )  # one zero for all ranks
        assert np.abs((start - zero) - replayed[0]).max() <= TOLERANCE_NS
        assert np.abs((end - zero) - replayed[1]).max() <= TOLERANCE_NS


def test_a_synthetic_program_survives_the_way_through_spans() -> None:
    program = decode_program(replace(LLAMA_70B, layers=4), workers(4))
    noisy, times = Group(program, seed=3).play(0)
    found = extract(to_table(noisy, times))
    assert len(found) == len(noisy)
    again = simulate(found)
    shift = np.nanmin(times.call_start)
    assert np.nanmax(np.abs(times.gpu_start - shift - again.gpu_start)) <= 2.0  # spans are whole ns


def test_a_collectives_transfer_is_what_all_ranks_share_of_it(dlrm: SpanTable) -> None:
    program = extract(dlrm)
    first = int(np.flatnonzero(program.collectives)[0])
    told, _ = classify(dlrm)
    kernels = told.duration_ns[told.kind == SpanKind.COLLECTIVE]
    assert kernels.max() > 7_000_000  # the victims' kernels are long
    assert program.own[:, first].max() <= 20_000  # the transfer is not


def test_the_causal_model_predicts_who_made_whom_wait(dlrm: SpanTable) -> None:
    """With rank 7's late start taken away, the others' first collective gets shorter."""
    program = extract(dlrm)
    first = int(np.flatnonzero(program.collectives)[0])
    before = simulate(program)
    start = program.start.copy()
    start[program.row_of(7)] -= 500_000.0
    after = simulate(program.with_times(start=start))
    length = before.gpu_end[:, first] - before.gpu_start[:, first]
    shorter = after.gpu_end[:, first] - after.gpu_start[:, first]
    others = [row for row in range(8) if row != program.row_of(7)]
    assert (shorter[others] < length[others] - 400_000).all()


def test_without_lateness_all_ranks_arrive_together(dlrm: SpanTable) -> None:
    healed = without_lateness(extract(dlrm))
    times = simulate(healed)
    arrivals = times.gpu_start[:, healed.collectives]
    assert np.ptp(arrivals, axis=0).max() == 0
    assert healed.ranks == 8
    assert healed.present.all()
    assert any("semi-synthetic" in note for note in healed.notes)


def test_a_clone_does_on_every_rank_what_the_real_rank_did(vllm: SpanTable) -> None:
    real = extract(vllm)
    group = cloned(real, workers(8))
    assert len(group) == len(real)
    assert group.collectives.sum() == 74
    compute = group.compute
    assert (group.own[:, compute] == real.own[0, compute]).all()
    assert (group.own[:, group.collectives] <= real.own[0, group.collectives]).all()
    with pytest.raises(ValueError, match="takes one rank's program, this one has 8"):
        cloned(group, workers(8))


def test_the_noise_in_use_is_the_noise_fitted(traces: Path, vllm: SpanTable) -> None:
    assert fit(read([traces / "nsys_h100_2gpu_wan_sp2"]).table, vllm) == FITTED


def test_a_fault_comes_back_out_of_its_spans() -> None:
    program = decode_program(replace(LLAMA_70B, layers=4), workers(4))
    injected = late_launches(program, rank=2, delay_ns=1e6, at=[20])
    found = extract(to_table(injected.program, simulate(injected.program)))
    extra = found.gap - found.gap[0]
    assert np.flatnonzero(extra.max(axis=0) > 1e5).tolist() == [20]
    assert extra[2, 20] == pytest.approx(1e6, abs=2)


def test_merged_orders_keep_every_ranks_order_and_match_collectives_by_count() -> None:
    collective = 9
    a = [1, 2, collective, 3, collective, 4]
    b = [1, 5, 2, collective, 3, 3, collective, 4]
    places = merge_orders([a, b], frozenset([collective]))
    for place in places:
        assert (np.diff(place) > 0).all()
    assert places[0][[2, 4]].tolist() == places[1][[3, 6]].tolist()
    shared = set(places[0].tolist()) & set(places[1].tolist())
    assert len(shared) == len(a)


def test_ranks_with_different_collectives_have_no_common_program() -> None:
    with pytest.raises(ValueError, match=r"different collectives \(counts 1, 2\)"):
        merge_orders([[1, 9], [9, 9]], frozenset([9]))
