"""The last steps and live incidents: bounded, and counted once."""

import msgspec

from kat_otel.processor.assembled import AssembledStep, StepRecord
from kat_otel.processor.recent import Recent
from kat_otel.spans import concat


def assembled(fleet, step: int, **slow: int) -> AssembledStep:
    table = concat(fleet.step(step, **slow))
    return AssembledStep(
        instance=fleet.instance,
        step=step,
        spans=table,
        ending="complete",
        missing_ranks=(),
        missing_count=0,
        receipts=(),
        record=StepRecord(table.span_id),
    )


def test_a_step_is_kept_with_its_verdict_in_a_sentence(fleet, judge_class):
    recent, judge = Recent(10, clock=lambda: 77), judge_class()
    for number, slow in ((1, {}), (2, {"rank2": 5_000_000})):
        step = assembled(fleet, number, **slow)
        recent.judged(step, judge.judge(step.table), 0.25)
    newest, oldest = recent.steps()
    assert (oldest.step, oldest.verdict, oldest.tone) == (1, "healthy", "healthy")
    assert newest.verdict.startswith("rank 2: slow kernel, costs 5 ms per step")
    assert (newest.tone, newest.ranks, newest.spans) == ("incident", 4, 44)
    assert (newest.latency_s, newest.judged_ns, newest.why) == (0.25, 77, "complete")
    table = step.table
    assert newest.trace_id == f"{int(table.trace_hi[0]):016x}{int(table.trace_lo[0]):016x}"


def test_only_the_last_steps_are_kept(fleet, judge_class):
    recent, judge = Recent(3), judge_class()
    for number in range(5):
        step = assembled(fleet, number)
        recent.judged(step, judge.judge(step.table))
    assert [seen.step for seen in recent.steps()] == [4, 3, 2]


def test_an_incident_lives_until_it_is_resolved_and_counts_once(fleet, judge_class):
    recent, judge = Recent(10), judge_class()
    step = assembled(fleet, 0, rank1=5_000_000)
    report = judge.judge(step.table)
    recent.judged(step, report)
    for status, page in (("ongoing", False), ("ongoing", True), ("ongoing", True)):
        (incident,) = report.incidents
        incident = msgspec.structs.replace(incident, status=status, page=page)
        recent.judged(step, msgspec.structs.replace(report, incidents=[incident]))
    ((instance, live),) = recent.incidents()
    assert (instance, live.id, live.page) == ("llama", "incident-1", True)
    assert recent.opened() == {("slow_kernel", "gpu_compute"): 1}
    assert recent.pages() == {("slow_kernel", "gpu_compute"): 1}
    resolved = msgspec.structs.replace(incident, status="resolved")
    recent.judged(step, msgspec.structs.replace(report, incidents=[resolved]))
    assert recent.incidents() == []
    assert recent.steps()[0].tone == "healthy"


def test_an_incident_from_before_a_restart_is_live_but_was_counted_there(fleet, judge_class):
    recent = Recent(10)
    step = assembled(fleet, 0, rank1=5_000_000)
    report = judge_class().judge(step.table)
    goes_on = msgspec.structs.replace(report.incidents[0], status="ongoing", page=True)
    recent.judged(step, msgspec.structs.replace(report, incidents=[goes_on]))
    assert len(recent.incidents()) == 1
    assert recent.opened() == {}


def test_a_forgotten_instance_takes_its_incidents_along(fleet, judge_class):
    recent = Recent(10)
    step = assembled(fleet, 0, rank1=5_000_000)
    recent.judged(step, judge_class().judge(step.table))
    recent.forget("another")
    assert len(recent.incidents()) == 1
    recent.forget("llama")
    assert recent.incidents() == []
