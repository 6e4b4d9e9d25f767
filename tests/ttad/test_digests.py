"""Digests alone name the rank that makes the others wait, and nobody else.

The groups are those of tests/detection/test_injections.py. Seeds from 500 on: nothing was adjusted
on them. A fault is put in after twelve healthy steps, or from the first step on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kat_otel import semconv
from kat_otel.digest import with_digests
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.extract import extract
from kat_otel.lmdia.inject import Injected, late_launches, slow_collectives, slow_rank
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.recording import Group, record
from kat_otel.lmdia.semi import cloned, without_lateness
from kat_otel.readers import read
from kat_otel.spans import SpanTable
from kat_otel.ttad import Detector
from kat_otel.ttad.digests import DigestDetector, is_digest_step
from kat_otel.ttad.settings import Settings
from kat_otel.verdict import Report, from_json, to_json

HEALTHY = 12
RANKS_AND_SEEDS = [(0, 500), (3, 501), (7, 502)]
LATE_NS = 5e6


def decode_group(ranks: int = 8, layers: int = 20) -> Program:
    """A synthetic tensor-parallel decode."""
    return decode_program(replace(LLAMA_70B, layers=layers), workers(ranks, instance="i"))


@pytest.fixture(scope="module")
def programs(traces: Path) -> dict[str, Program]:
    """The three groups; the first two are semi-synthetic."""
    real = read([traces / "vllm_gptoss_b200_tp8_rank0"]).table
    return {
        "dlrm": without_lateness(extract(read([traces / "dlrm_8rank"]).table)),
        "vllm": cloned(extract(real), workers(8)),
        "decode": decode_group(),
    }


@pytest.fixture(params=["dlrm", "vllm", "decode"])
def program(request: pytest.FixtureRequest, programs: dict[str, Program]) -> Program:
    """One of the groups."""
    return programs[request.param]


def steps_of(table: SpanTable) -> Iterator[SpanTable]:
    """The digest steps of a recording."""
    sent = with_digests(table)
    for step in np.unique(sent.step):
        yield sent.take(sent.step == step)


def reports(detector: DigestDetector, table: SpanTable) -> list[Report]:
    """What is said of each step."""
    return [detector.judge(step) for step in steps_of(table)]


def play(program: Program, fault: Injected, seed: int, *, begin: int, steps: int) -> list[Report]:
    """Judges a recording with a fault from step ``begin`` on; nothing is said before."""
    group = Group(program, seed)
    detector = DigestDetector()

    def at(step: int) -> Program:
        return fault.program if step >= begin else program

    said = reports(detector, record(group, range(begin + steps), program_at=at))
    assert all(report.abstained is None for report in said)
    assert [r.incidents for r in said[:begin] if r.incidents] == []
    return said[begin:]


def check(said: list[Report], fault: Injected) -> None:
    """One incident: the injected rank and kind."""
    said = [from_json(to_json(report)) for report in said]
    incidents = {i.id: i for report in said for i in report.incidents}
    told = [(i.kind, i.culprit.ranks) for i in incidents.values()]
    assert len(incidents) == 1, f"{fault.fault.text}; said: {told}"
    (incident,) = incidents.values()
    assert tuple(incident.culprit.ranks) == fault.fault.ranks, told
    assert incident.kind in fault.fault.kinds, told
    assert incident.component in fault.fault.components
    assert not set(incident.victims) & set(incident.culprit.ranks) or not fault.fault.ranks


@pytest.mark.parametrize("seed", range(510, 514))
def test_a_healthy_group_has_no_incident(program: Program, seed: int) -> None:
    said = reports(DigestDetector(), record(Group(program, seed), range(24)))
    assert [r.abstained for r in said if r.abstained] == []
    assert [(i.kind, i.culprit.ranks) for r in said for i in r.incidents] == []


@pytest.mark.parametrize(("rank", "seed"), RANKS_AND_SEEDS)
def test_a_rank_whose_compute_gets_ten_percent_slower(
    program: Program, rank: int, seed: int
) -> None:
    fault = slow_rank(program, rank, 10)
    check(play(program, fault, seed, begin=HEALTHY, steps=3), fault)


@pytest.mark.parametrize(("rank", "seed"), RANKS_AND_SEEDS)
def test_a_rank_that_was_slow_from_the_start(program: Program, rank: int, seed: int) -> None:
    fault = slow_rank(program, rank, 10)
    check(play(program, fault, seed, begin=0, steps=9), fault)


@pytest.mark.parametrize(("rank", "seed"), RANKS_AND_SEEDS)
def test_launches_five_milliseconds_late_in_one_single_step(
    program: Program, rank: int, seed: int
) -> None:
    at = int(np.random.default_rng(seed).integers(len(program) // 5, len(program) // 2))
    fault = late_launches(program, rank, LATE_NS, [at])
    said = play(program, fault, seed, begin=HEALTHY, steps=1)
    check(said, fault)
    (incident,) = said[0].incidents
    assert incident.victims == [r for r in range(8) if r != rank]
    assert incident.impact_ns > 0.2 * LATE_NS


def test_transfers_of_everybody_have_no_culprit() -> None:
    program = decode_group()
    fault = slow_collectives(program, 1.5)
    check(play(program, fault, 503, begin=HEALTHY, steps=4), fault)


def test_of_two_ranks_the_slow_one_is_known_by_its_history() -> None:
    program = decode_group(ranks=2)
    fault = slow_rank(program, 1, 15)
    check(play(program, fault, 504, begin=HEALTHY, steps=3), fault)


def test_an_incident_goes_on_and_ends() -> None:
    program = decode_group(layers=8)
    fault = slow_rank(program, 2, 20)
    group = Group(program, 505)
    settings = Settings(resolve_after=3)

    def at(step: int) -> Program:
        return fault.program if 12 <= step < 16 else program

    detector = DigestDetector(settings)
    lives = [
        (i.status, i.occurrences, i.id)
        for step in steps_of(record(group, range(22), program_at=at))
        for i in detector.judge(step).incidents
    ]
    told = [(status, occurrences) for status, occurrences, _ in lives]
    assert told == [("open", 1), *(("ongoing", n) for n in (2, 3, 4)), ("resolved", 4)]
    assert len({name for _, _, name in lives}) == 1


def test_names_of_slow_kernels_are_told_as_far_as_they_were_sent() -> None:
    program = decode_group()
    fault = slow_rank(program, 3, 20)
    (incident,) = play(program, fault, 506, begin=HEALTHY, steps=1)[0].incidents
    told = " ".join(e.text for e in incident.evidence)
    assert "nvjet" in told or "flash" in told.lower()


def test_missing_digests_are_said_and_many_of_them_end_the_judging() -> None:
    table = next(steps_of(record(Group(decode_group(layers=2), 1), [0])))
    few = DigestDetector().judge(table.take(table.rank != 5))
    assert few.abstained is None
    assert any("1 of 8 ranks sent no digest" in note for note in few.coverage.notes)
    many = DigestDetector().judge(table.take(table.rank < 5))
    assert many.abstained is not None
    assert many.abstained.reason == "digests_missing"


def test_a_broken_digest_is_said_and_the_others_are_judged() -> None:
    table = next(steps_of(record(Group(decode_group(layers=2), 1), [0])))
    attributes = dict(table.attributes)
    attributes[0] = {**attributes[0], semconv.DIGEST: b"KD\x07" + bytes(200)}
    report = DigestDetector().judge(replace(table, attributes=attributes))
    assert report.abstained is None
    assert any("version 7" in note for note in report.coverage.notes)


def test_ranks_with_other_collectives_are_compared_among_themselves() -> None:
    one = next(steps_of(record(Group(decode_group(layers=2), 1), [0])))
    other = next(steps_of(record(Group(decode_group(layers=3), 1), [0])))
    attributes = dict(one.attributes)
    for row in range(4):
        attributes[row] = other.attributes[row]
    report = DigestDetector().judge(replace(one, attributes=attributes))
    assert report.incidents == []
    assert any("2 different sequences" in note for note in report.coverage.notes)


def test_the_detector_hands_digest_steps_over_and_one_cause_is_one_incident() -> None:
    program = decode_group()
    fault = slow_rank(program, 3, 20)
    group, detector = Group(program, 507), Detector()
    for step in steps_of(record(group, range(HEALTHY))):
        assert is_digest_step(step)
        assert detector.judge(step).incidents == []
    sick = record(group, [HEALTHY, HEALTHY + 1], program_at=lambda _: fault.program)
    (first,) = detector.judge(next(steps_of(sick.take(sick.step == HEALTHY)))).incidents
    whole = with_digests(sick, keep=sick.step > HEALTHY)
    (second,) = detector.judge(whole.take(whole.step > HEALTHY)).incidents
    assert first.id == second.id
    assert (first.status, second.status) == ("open", "ongoing")
    assert second.culprit.ranks == [3]
