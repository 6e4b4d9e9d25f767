"""What each part of the detector is worth: left out, what only it can see is not seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import Injected, slow_collectives, slow_kernels, slow_rank
from kat_otel.lmdia.recording import Group, record
from kat_otel.ttad import analyze
from kat_otel.ttad.settings import Part, Settings
from kat_otel.verdict import Incident

PROGRAM = decode_program(replace(LLAMA_70B, layers=6), workers(4, instance="parts"))
HEALTHY = 12


def _said(fault: Injected, *without: Part, healthy: int = HEALTHY) -> list[Incident]:
    table = record(
        Group(PROGRAM, 5),
        range(healthy + 3),
        program_at=lambda step: PROGRAM if step < healthy else fault.program,
    )
    return analyze(table, settings=Settings(without=frozenset(without))).incidents


@pytest.mark.parametrize("without", [(), ("peers",), ("history",), ("walk",)])
def test_a_healthy_group_is_left_alone(without: tuple[Part, ...]) -> None:
    nothing = slow_rank(PROGRAM, 0, 0.0)
    assert _said(nothing, *without) == []


def test_only_history_sees_what_slows_all_ranks_alike() -> None:
    fault = slow_collectives(PROGRAM, 3.0)
    assert [i.kind for i in _said(fault)] == ["slow_transfer"]
    assert _said(fault, "history") == []


def test_only_peers_see_what_was_there_from_the_beginning() -> None:
    fault = slow_rank(PROGRAM, 2, 30.0)
    assert [i.culprit.ranks for i in _said(fault, healthy=0)] == [[2]]
    assert [i.culprit.ranks for i in _said(fault, "history", healthy=0)] == [[2]]
    assert _said(fault, "peers", healthy=0) == []


def test_only_the_walk_tells_single_kernels_from_late_launches() -> None:
    long = [i for i in range(len(PROGRAM)) if PROGRAM.own[0, i] > 60_000]
    compute = [i for i in long if PROGRAM.compute[i]][:2]
    fault = slow_kernels(PROGRAM, 1, compute, 4.0)
    assert {i.kind for i in _said(fault)} == {"slow_kernel"}
    assert {i.kind for i in _said(fault, "walk")} == {"late_launch"}
