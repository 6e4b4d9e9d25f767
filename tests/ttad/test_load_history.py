"""Work that is never twice the same: replicas with batches of their own, judged by their loads.

The tasks are training tasks of the benchmark, whose replicas prefill prompts of other lengths.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from kat_otel.kernels import classify
from kat_otel.lmdia.dataset.collection import cases_of, sources
from kat_otel.lmdia.dataset.play import WARM_UP, Episode, play
from kat_otel.spans import SpanTable
from kat_otel.ttad import Detector, Settings
from kat_otel.ttad.align import Alignment, align
from kat_otel.ttad.covariates import own_batches, own_experts
from kat_otel.ttad.durations import local_work
from kat_otel.ttad.features import Features, features
from kat_otel.ttad.load_history import LoadHistory, load_of
from kat_otel.ttad.meetings import meetings
from kat_otel.verdict import Incident

REPLICAS = "qwen3-235b-a22b.vllm.prefill"


def episode(scenario: str, task: str = REPLICAS) -> Episode:
    cases = cases_of("full", ["train"], only=[task])
    wanted = f"{task}.{scenario}"
    return play(next(c for c in cases if c.name == wanted), sources(None))


def tables(scenario: str, count: int, task: str = REPLICAS) -> list[SpanTable]:
    return [step.table for step in islice(episode(scenario, task).steps(), count)]


def looked_at(table: SpanTable) -> tuple[SpanTable, Alignment, Features]:
    table, meaning = classify(table, ())
    alignment = align(table, meaning)
    return table, alignment, features(table, alignment)


def said(steps: list[SpanTable], settings: Settings | None = None) -> list[list[Incident]]:
    detector = Detector(settings)
    return [detector.judge(step).incidents for step in steps]


@pytest.fixture(scope="module")
def healthy() -> list[SpanTable]:
    return tables("healthy.0", WARM_UP)


def test_replicas_have_batches_of_their_own(healthy: list[SpanTable]) -> None:
    table, alignment, _ = looked_at(healthy[0])
    assert alignment.peers.tolist() == [0, 0, 0, 0, 1, 1, 1, 1], "four ranks each can outvote one"
    assert not own_batches(table, alignment)
    (single,) = tables("healthy.0", 1, "deepseek-v3.vllm.prefill")
    table, alignment, _ = looked_at(single)
    assert own_batches(table, alignment), "replicas of one rank are peers, but not in all they do"
    signatures = {looked_at(step)[1].signature() for step in healthy}
    assert len(signatures) >= len(healthy) - 2, "hardly a step is the work of another"
    assert len({looked_at(step)[1].sequence() for step in healthy}) == 1


def test_more_work_is_nobodys_fault(healthy: list[SpanTable]) -> None:
    assert not any(said(healthy))


def test_the_load_is_what_the_grids_say(healthy: list[SpanTable]) -> None:
    table, alignment, measured = looked_at(healthy[0])
    load = load_of(table, alignment, local_work(measured, alignment))
    assert load is not None
    own = local_work(measured, alignment) & ~own_experts(table, alignment)
    time = measured.duration[own].sum(axis=0)
    assert np.corrcoef(load, time)[0, 1] > 0.9


def test_without_grids_there_is_no_load() -> None:
    (step,) = tables("healthy.0", 1)
    step.grid[:] = 0
    table, alignment, measured = looked_at(step)
    assert load_of(table, alignment, local_work(measured, alignment)) is None


def test_what_is_usual_follows_the_load(healthy: list[SpanTable]) -> None:
    history = LoadHistory(32)
    for step in healthy[:-1]:
        table, alignment, measured = looked_at(step)
        load = load_of(table, alignment, local_work(measured, alignment))
        assert load is not None
        history.remember(alignment, measured, meetings(table, measured, alignment), load)
    table, alignment, measured = looked_at(healthy[-1])
    load = load_of(table, alignment, local_work(measured, alignment))
    assert load is not None
    expected = history.expect(alignment, load, least=8)
    assert expected is not None
    assert expected.steps == len(healthy) - 1
    own = local_work(measured, alignment) & ~own_experts(table, alignment)
    known = (expected.duration > 0) & own[:, None]
    assert known.mean() > 0.4
    off = np.abs(measured.duration[known] / expected.duration[known] - 1)
    assert np.median(off) < 0.02
    far = history.expect(alignment, np.asarray(load + 1.0), least=8)
    assert far is not None
    assert not far.duration.any(), "of such loads nothing is known"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        ("kernel_regression.100pc.20", "regression"),
        ("gpu_memory_squeeze_out_NVLink.20pc.8", "slow_transfer"),
    ],
)
def test_what_everybody_has_is_found_though_grids_change(scenario: str, kind: str) -> None:
    steps = tables(scenario, WARM_UP + 1)
    *before, last = said(steps)
    assert not any(before)
    assert {i.kind for i in last} == {kind}
    assert last[0].culprit.ranks == []
    (*_, without) = said(steps, Settings(without=frozenset({"history"})))
    assert without == []


@pytest.mark.slow
def test_a_slow_replica_is_named() -> None:
    played = episode("gpu_instability.20pc.8")
    (truth,) = played.label.faults
    *_, last = said([s.table for s in islice(played.steps(), WARM_UP + 1)])
    assert [(i.kind, tuple(i.culprit.ranks)) for i in last] == [("slow_rank", truth.culprits)]
