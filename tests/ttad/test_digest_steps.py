"""Digest steps judged together: the reports are those of one step after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kat_otel import semconv
from kat_otel.digest import with_digests
from kat_otel.digest.form import HEADER, WHAT
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import late_launches, slow_collectives, slow_rank
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.recording import Group, record
from kat_otel.spans import SpanTable, concat
from kat_otel.ttad import Detector
from kat_otel.ttad.digests import DigestDetector
from kat_otel.ttad.settings import Settings
from kat_otel.verdict import Report, to_json

STEPS = 44
QUICK = Settings(resolve_after=4)


def program_of(ranks: int, layers: int = 3) -> Program:
    """A small tensor-parallel decode."""
    return decode_program(replace(LLAMA_70B, layers=layers), workers(ranks, instance="i"))


def recorded(
    program: Program, at: Callable[[int], Program], seed: int, steps: int = STEPS
) -> list[SpanTable]:
    """The digest steps of a recording."""
    sent = with_digests(record(Group(program, seed), range(steps), program_at=at))
    return [sent.take(sent.step == step) for step in range(steps)]


def with_digest(table: SpanTable, row: int, data: bytes) -> SpanTable:
    """The table with another digest in a row."""
    said = {**table.attributes, row: {**table.attributes[row], semconv.DIGEST: data}}
    return replace(table, attributes=said)


def digest_in(table: SpanTable, row: int) -> bytes:
    """A row's digest."""
    data = table.attributes[row][semconv.DIGEST]
    assert isinstance(data, bytes)
    return data


def contradicting(data: bytes) -> bytes:
    """A digest whose collectives are of kinds that it does not have."""
    header = np.frombuffer(data, HEADER, 1)[0]
    tables = HEADER.itemsize + WHAT.itemsize * int(header["whats"]) + 4 * int(header["classes"])
    at = tables + int(header["records"]) * (6 + 2 * int(header["leads"]))
    return data[:at] + b"\xff" * int(header["records"]) + data[at + int(header["records"]) :]


def trouble(step: SpanTable, what: int, row: int, other: SpanTable) -> SpanTable:
    """The step with a missing, broken, repeated or exchanged digest, or ranks out of order."""
    match what:
        case 0:
            return step.take(np.arange(len(step)) != row)
        case 1:
            return step.take(np.arange(len(step)) < row)
        case 2:
            return with_digest(step, row, b"KD\x07" + bytes(200))
        case 3:
            return with_digest(step, row, contradicting(digest_in(step, row)))
        case 4:
            twice = concat([step, step.take(np.array([row]))])
            return replace(twice, resources=step.resources, resource=twice.rank)
        case 5:
            return with_digest(step, row, digest_in(other, row))
        case 6:
            return step.take(np.random.default_rng(row).permutation(len(step)))
        case 7:
            return other.with_columns(step=step.step, start_ns=step.start_ns)
        case _:
            return step


def troubled(steps: list[SpanTable], seed: int) -> list[SpanTable]:
    """The steps of four ranks, half of them in trouble."""
    random = np.random.default_rng(seed)
    program = program_of(4, layers=2)
    other = recorded(program, lambda _: program, seed, len(steps))
    return [
        trouble(step, int(random.integers(14)), int(random.integers(4)), foreign)
        for step, foreign in zip(steps, other, strict=True)
    ]


def joined(steps: list[SpanTable]) -> tuple[SpanTable, list[int]]:
    """Some steps as one table, and where each begins."""
    return concat(steps), [0, *np.cumsum([len(step) for step in steps]).tolist()]


def one_by_one(steps: list[SpanTable], settings: Settings) -> list[bytes]:
    """Reports as they were when given."""
    detector = DigestDetector(settings)
    return [to_json(detector.judge(step)) for step in steps]


def together(steps: list[SpanTable], settings: Settings, seed: int) -> list[bytes]:
    """Reports of batches of random sizes; looked at when all of a batch are given."""
    detector, random = DigestDetector(settings), np.random.default_rng(seed)
    reports: list[Report] = []
    at = 0
    while at < len(steps):
        some = steps[at : at + int(random.integers(1, 24))]
        reports += detector.judge_steps(*joined(some))
        at += len(some)
    return [to_json(report) for report in reports]


FAULTS: dict[str, Callable[[Program, int], Program]] = {
    "healthy": lambda program, _: program,
    "slow rank": lambda program, seed: slow_rank(program, seed % 2, 20).program,
    "late launch": lambda program, seed: late_launches(program, seed % 2, 5e6, [9]).program,
    "slow collectives": lambda program, _: slow_collectives(program, 2.5).program,
}


@pytest.mark.parametrize("ranks", [1, 2, 4, 6])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", [900, 901])
def test_steps_judged_together_are_judged_as_if_one_by_one(
    ranks: int, fault: str, seed: int
) -> None:
    program = program_of(ranks)
    faulty = FAULTS[fault](program, seed if ranks > 1 else 0)
    begin = 0 if seed % 2 else 13
    steps = recorded(program, lambda s: faulty if begin <= s < begin + 12 else program, seed)
    assert together(steps, QUICK, seed) == one_by_one(steps, QUICK)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", range(910, 915))
def test_with_missing_broken_and_repeated_digests_too(fault: str, seed: int) -> None:
    program = program_of(4)
    faulty = FAULTS[fault](program, seed)
    steps = recorded(program, lambda s: faulty if 20 <= s < 32 else program, seed)
    steps = troubled(steps, seed)
    assert together(steps, QUICK, seed) == one_by_one(steps, QUICK)


@pytest.mark.parametrize("history", [1, 3, 8, 64])
def test_whatever_is_remembered(history: int) -> None:
    program = program_of(4)
    faulty = FAULTS["slow rank"](program, 1)
    settings = replace(QUICK, history_steps=history)
    steps = recorded(program, lambda s: faulty if 20 <= s < 32 else program, 920)
    assert together(steps, settings, 920) == one_by_one(steps, settings)


def test_a_digest_that_contradicts_itself_is_said_and_the_others_are_judged() -> None:
    (step,) = recorded(program_of(8), lambda _: program_of(8), 930, 1)
    report = DigestDetector().judge(with_digest(step, 3, contradicting(digest_in(step, 3))))
    assert report.abstained is None
    assert any("could not be read, rank 3" in note for note in report.coverage.notes)
    assert report.steps[0].ranks == [0, 1, 2, 4, 5, 6, 7]


def test_ranks_that_meet_others_from_a_step_on_are_judged_by_whom_they_meet() -> None:
    program = program_of(4)
    steps = recorded(program, lambda _: program, 940, 16)
    for number in range(8, 16):
        for row in (2, 3):  # now a group of their own
            data = bytearray(digest_in(steps[number], row))
            whats = int(np.frombuffer(data, HEADER, 1)[0]["whats"])
            for at in range(HEADER.itemsize, HEADER.itemsize + 12 * whats, 12):
                data[at + 4 : at + 8] = b"\x01\x02\x03\x04"
            steps[number] = with_digest(steps[number], row, bytes(data))
    assert together(steps, QUICK, 940) == one_by_one(steps, QUICK)


def test_no_steps_and_steps_without_spans() -> None:
    assert DigestDetector().judge_steps(SpanTable.empty(), [0]) == []
    (report,) = DigestDetector().judge_steps(SpanTable.empty(), [0, 0])
    assert report.abstained is not None
    (step,) = recorded(program_of(2), lambda _: program_of(2), 950, 1)
    table, _ = joined([step])
    said = DigestDetector().judge_steps(table, [0, 0, 2, 2])
    assert [report.abstained is None for report in said] == [False, True, False]


def test_an_earlier_report_does_not_change_when_its_incident_ends_in_the_same_batch() -> None:
    program = program_of(4)
    faulty = slow_rank(program, 1, 20).program
    steps = recorded(program, lambda s: faulty if 14 <= s < 16 else program, 960, 24)
    detector = DigestDetector(QUICK)
    said = detector.judge_steps(*joined(steps))
    told = [incident.status for report in said for incident in report.incidents]
    assert told == ["open", "ongoing", "resolved"]


@pytest.mark.parametrize("digests", [True, False])
def test_the_full_detector_hands_steps_over_together(digests: bool) -> None:
    settings = replace(QUICK, digests=digests)
    program = program_of(4)
    steps = recorded(program, lambda _: program, 970, 4)
    apart = Detector(settings)
    expected = [to_json(apart.judge(step)) for step in steps]
    assert [to_json(r) for r in Detector(settings).judge_steps(*joined(steps))] == expected
