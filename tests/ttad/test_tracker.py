"""The life of incidents where steps come late, twice, or to two processors at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import slow_rank
from kat_otel.lmdia.recording import Group, record
from kat_otel.spans import SpanTable
from kat_otel.ttad.detector import Detector
from kat_otel.ttad.settings import Settings
from kat_otel.ttad.state import restore, snapshot
from kat_otel.verdict import Incident

QUICK = Settings(min_history=2, history_steps=6, resolve_after=3)
PROGRAM = decode_program(replace(LLAMA_70B, layers=3), workers(4))


@pytest.fixture(scope="module")
def steps() -> list[SpanTable]:
    """Healthy up to step 5, slow from 6 to 11, healthy to 15, slow again."""
    faulty = slow_rank(PROGRAM, 1, 30).program
    table = record(
        Group(PROGRAM, 5),
        range(20),
        program_at=lambda step: faulty if 6 <= step < 12 or step >= 16 else PROGRAM,
    )
    return [table.take(table.step == step) for step in range(20)]


def told(detector: Detector, steps: Sequence[SpanTable]) -> list[Incident]:
    return [incident for step in steps for incident in detector.judge(step).incidents]


def earlier(table: SpanTable, by_ns: int) -> SpanTable:
    return table.with_columns(start_ns=table.start_ns - np.int64(by_ns))


def test_old_healthy_steps_do_not_end_an_incident(steps: list[SpanTable]) -> None:
    detector = Detector(QUICK)
    told(detector, steps[:2] + steps[3:9])
    assert not told(detector, [*steps[2:6]] * 2), "found in the log of a killed processor"
    (last,) = {incident.id for incident in told(detector, steps[9:12])}
    assert len(detector.tracker) == 1
    (life,) = detector.tracker.lives()
    assert (life.incident.id, life.incident.occurrences) == (last, 6)


def test_a_clock_that_jumped_back_far_does_not_keep_an_incident_open(
    steps: list[SpanTable],
) -> None:
    detector = Detector(QUICK)
    told(detector, steps[:9])
    far = 2 * 3_600_000_000_000
    after = told(detector, [earlier(step, far) for step in steps[12:15]])
    assert [incident.status for incident in after] == ["resolved"]


def test_two_processors_open_one_fault_under_one_id(steps: list[SpanTable]) -> None:
    """The one that was left still judges what it had taken."""
    left = Detector(QUICK)
    told(left, steps[:5])
    comes = restore(snapshot(left), QUICK)
    ids = {i.id for i in told(left, steps[5:8])} | {i.id for i in told(comes, steps[8:12])}
    assert len(ids) == 1


def test_the_same_fault_after_its_end_is_another_incident(steps: list[SpanTable]) -> None:
    detector = Detector(QUICK)
    first = {i.id for i in told(detector, steps[:16])}
    detector = restore(snapshot(detector), QUICK)
    assert first.isdisjoint({i.id for i in told(detector, steps[16:])})
    assert len(first) == 1
