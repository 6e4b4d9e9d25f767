"""Readings join the incidents of real steps: simulated workers, their machines and TTAD."""

from dataclasses import replace

import msgspec
import pytest

from kat_otel.config import HardwareConfig
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.hardware import COMPONENT_OF, Cause, Machines
from kat_otel.lmdia.inject import late_launches, slow_rank
from kat_otel.lmdia.recording import Group, record
from kat_otel.processor.hardware import HardwareJoin
from kat_otel.spans import SpanTable
from kat_otel.ttad import Detector
from kat_otel.verdict import Report

SECOND = 1_000_000_000
CULPRIT = 2


def judged(kind: str) -> tuple[Report, SpanTable]:
    """One faulty step of four workers, judged from its traces alone."""
    members = workers(4, instance="demo", host="demo-host")
    healthy = program = decode_program(replace(LLAMA_70B, layers=8), members)
    if kind == "slow_rank":
        program = slow_rank(program, CULPRIT, 25).program
    elif kind == "late_launch":
        program = late_launches(program, CULPRIT, 4e6, [len(program) // 3]).program
    table = record(Group(healthy, seed=5), [3], program_at=lambda _: program)
    return Detector().judge(table), table


def sent(join: HardwareJoin, cause: Cause, onset: int) -> None:
    members = workers(4, instance="demo", host="demo-host")
    machines = Machines(members, cause, CULPRIT, onset - 90 * SECOND, onset, onset + 30 * SECOND)
    for request in machines.requests():
        join.take(request.signal, request.data)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("slow_rank", "thermal"),
        ("slow_rank", "power_cap"),
        ("slow_rank", "xid_ecc"),
        ("late_launch", "steal"),
        ("late_launch", "swap"),
    ],
)
def test_a_step_that_ttad_blames_gets_the_component_that_the_machines_show(kind, cause):
    report, table = judged(kind)
    blamed = report.incidents[0]
    assert blamed.culprit.ranks == [CULPRIT]
    join = HardwareJoin(HardwareConfig())
    sent(join, cause, blamed.first_seen)
    join.explain(report, table, now=10.0)
    told = report.incidents[0]
    assert told.component == COMPONENT_OF[cause]
    assert (told.culprit, told.kind, told.impact_ns) == (
        blamed.culprit,
        blamed.kind,
        blamed.impact_ns,
    )
    # within a second the readings are not looked up again, and the verdict stays
    report.incidents = [blamed]
    join.explain(report, table, now=10.5)
    assert report.incidents[0] == told


def test_a_healthy_step_stays_healthy_whatever_the_machines_say():
    report, table = judged("healthy")
    assert report.incidents == []
    join = HardwareJoin(HardwareConfig())
    sent(join, "thermal", int(table.start_ns.min()))
    join.explain(report, table, now=1.0)
    assert report.incidents == []


def test_switched_off_it_reads_nothing():
    join = HardwareJoin(HardwareConfig(enabled=False))
    sent(join, "thermal", 1_760_000_000 * SECOND)
    assert len(join.store) == 0


def test_what_is_remembered_of_incidents_is_bounded():
    report, table = judged("slow_rank")
    blamed = report.incidents[0]
    join = HardwareJoin(HardwareConfig())
    sent(join, "thermal", blamed.first_seen)
    for number in range(1_200):
        report.incidents = [msgspec.structs.replace(blamed, id=str(number))]
        join.explain(report, table, now=0.0)
    assert len(join._told) <= 1_000
