"""How an instance goes, by its last steps."""

from dataclasses import replace

import msgspec

from kat_otel.processor.instances import Instances
from kat_otel.verdict import Abstention, Coverage, Instance
from tests.processor.test_recent import assembled


def watch(fleet, judge, numbers, lateness=(), **changed) -> Instances:
    instances = Instances()
    for number in numbers:
        step = assembled(fleet, number)
        report = msgspec.structs.replace(judge.judge(step.table), **changed)
        instances.judged(step, report, 9_000_000 + number, dict(lateness), 77)
    return instances


def test_pace_is_by_the_workers_clocks_also_where_steps_are_left_out(fleet, judge_class):
    (found,) = watch(fleet, judge_class(), (0, 1, 5, 20)).read()
    assert found.steps_per_s == 100  # the fleet begins a step every 10 ms
    assert (found.step, found.step_ns, found.ranks, found.hosts) == (20, 9_000_003, 4, 1)
    assert found.last_steps_ns == [9_000_000, 9_000_001, 9_000_005, 9_000_020]


def test_an_engine_that_counts_anew_has_no_pace(fleet, judge_class):
    (found,) = watch(fleet, judge_class(), (9, 3)).read()
    assert found.steps_per_s is None


def test_coverage_says_what_was_judged_and_compared(fleet, judge_class):
    coverage = Coverage(spans=44, kernels=20, aligned=15, unmatched=5, notes=[])
    instances = watch(fleet, judge_class(), (1, 2, 3), coverage=coverage)
    step = replace(assembled(fleet, 4), ending="waited", missing_ranks=tuple(range(30)))
    report = msgspec.structs.replace(
        judge_class().judge(step.table),
        abstained=Abstention(reason="too few", detail=""),
        instance=Instance(id="llama", model="Llama", engine="vllm"),
    )
    instances.judged(step, report, 1, {}, 78)
    (found,) = instances.read()
    assert (found.judged_share, found.aligned_share) == (0.75, 0.75)
    assert (found.abstained, found.model, found.engine) == ("too few", "Llama", "vllm")
    assert found.missing_ranks == list(range(16))


def test_the_latest_ranks_stay_known_over_steps_that_do_not_tell(fleet, judge_class):
    late = {0: 0, 1: 5_000, 2: 90_000, 3: 300}
    instances = watch(fleet, judge_class(), (1, 2), late.items())
    step = assembled(fleet, 3)
    instances.judged(step, judge_class().judge(step.table), 1, {}, 78)
    (found,) = instances.read()
    assert [(one.rank, one.late_ns) for one in found.worst_ranks] == [
        *((2, 90_000), (1, 5_000), (3, 300))
    ]
    assert found.worst_ranks[0].host == "node1"


def test_a_single_late_step_weighs_little(fleet, judge_class):
    instances = watch(fleet, judge_class(), range(20), {1: 0, 2: 0}.items())
    step = assembled(fleet, 20)
    instances.judged(step, judge_class().judge(step.table), 1, {1: 0, 2: 8_000}, 78)
    (found,) = instances.read()
    assert [(one.rank, one.late_ns) for one in found.worst_ranks] == [(2, 1_000)]


def test_it_is_bounded_and_forgets(fleet, make_fleet, judge_class):
    instances = watch(fleet, judge_class(), (1,))
    for number in range(1_030):
        step = replace(assembled(fleet, 1), instance=f"i{number}")
        instances.judged(step, judge_class().judge(step.table), 1, {}, 78)
    names = [found.instance for found in instances.read()]
    assert len(names) == 1_024
    assert names[0] == "i1029"  # the one judged last
    instances.forget("i1029")
    assert next(instances.read()).instance == "i1028"
