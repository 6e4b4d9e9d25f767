"""A step is put together from what its ranks send, in whatever order, at most for so long."""

import math
from dataclasses import replace

import numpy as np
import pytest

from kat_otel.config import AssemblerConfig
from kat_otel.processor import assembler as assembling
from kat_otel.processor.assembler import Assembler
from kat_otel.spans import UNKNOWN, SpanKind, concat

WAIT, ORDER = 5.0, 0.5


@pytest.fixture
def assembler() -> Assembler:
    return Assembler(AssemblerConfig(decision_wait=WAIT, order_wait=ORDER))


def add(assembler: Assembler, now: float, *tables):
    return [assembler.add(table, now) for table in tables]


def steps_of(ready) -> list[tuple[int, str]]:
    return [(step.step, step.ending) for step in ready]


def test_a_step_is_ready_when_every_rank_has_closed_it(assembler, fleet):
    *first, last = fleet.step(0)
    add(assembler, 0.0, *first)
    assert list(assembler.ready(0.0)) == []
    assert assembler.next_deadline() == WAIT
    add(assembler, 1.0, last)
    (step,) = assembler.ready(1.0)
    assert (step.instance, step.step, step.ending) == ("llama", 0, "complete")
    assert (step.missing_ranks, step.missing_count) == ((), 0)
    assert len(step.table) == 44
    assert assembler.next_deadline() == math.inf


def test_all_ranks_in_one_batch_are_parted(assembler, fleet):
    add(assembler, 0.0, concat([*fleet.step(0), *fleet.step(1)]))
    assert steps_of(assembler.ready(0.0)) == [(0, "complete"), (1, "complete")]


def test_a_rank_has_not_closed_before_all_its_spans_are_here(assembler, fleet):
    *others, last = fleet.step(0)
    worker_step = last.kind == SpanKind.WORKER_STEP
    add(assembler, 0.0, *others, last.take(worker_step))
    assert list(assembler.ready(0.0)) == []
    add(assembler, 0.0, last.take(~worker_step))
    (step,) = assembler.ready(0.0)
    # Parents are linked across the batches.
    assert np.count_nonzero(step.table.parent < 0) == 4
    assert len(step.table.resources) == 4  # said by five batches, kept once a rank


def test_what_waits_while_others_come_is_folded_into_less_memory(assembler, fleet, monkeypatch):
    monkeypatch.setattr("kat_otel.processor.assembler._MAX_LOOSE", 60)
    first, *rest = fleet.step(0)
    others = [table for number in range(1, 8) for table in fleet.step(number)]
    add(assembler, 0.0, first, *others)
    _, spans, size, _ = assembler.fill()
    assert spans == sum(map(len, [first, *others]))
    assert size < 0.95 * sum(table.nbytes for table in [first, *others])
    add(assembler, 0.0, *rest)
    assert [len(step.table) for step in assembler.ready(0.0)] == [44] * 8
    assert assembler.fill()[1:3] == (0, 0)


def test_repeated_spans_are_counted_and_close_nothing(assembler, fleet):
    *others, last = fleet.step(0)
    part = last.take(np.arange(6))  # the worker step and the launches
    arrivals = add(assembler, 0.0, *others, part, part, concat([part, part]))
    assert [a.repeated for a in arrivals] == [0, 0, 0, 0, 6, 12]
    assert list(assembler.ready(0.0)) == []
    add(assembler, 0.0, last)
    (step,) = assembler.ready(0.0)
    assert len(step.table) == len(np.unique(step.table.span_id)) == 44


def test_a_missing_rank_is_waited_for_and_then_named(assembler, fleet):
    tables = fleet.step(0)
    add(assembler, 0.0, tables[0], tables[1], tables[3])
    assert list(assembler.ready(WAIT - 0.001)) == []
    (step,) = assembler.ready(WAIT)
    assert (step.ending, step.missing_ranks, step.missing_count) == ("waited", (2,), 1)


def test_a_rank_that_lost_spans_counts_as_missing(assembler, fleet):
    *others, last = fleet.step(0)
    add(assembler, 0.0, *others, last.take(np.arange(10)))
    (step,) = assembler.ready(WAIT)
    assert step.missing_ranks == (3,)
    assert len(step.table) == 43  # what came is judged all the same


def test_without_group_size_the_world_size_tells_how_many_ranks_there_are(assembler, fleet):
    add(assembler, 0.0, *(fleet.rank(rank, 0, said=False) for rank in range(4)))
    assert steps_of(assembler.ready(0.0)) == [(0, "complete")]


def test_when_nobody_says_how_many_ranks_there_are_the_step_waits(assembler, make_fleet):
    fleet = make_fleet(world_size=UNKNOWN)
    add(assembler, 0.0, fleet.rank(0, 0, said=False))
    (step,) = assembler.ready(WAIT)
    assert (step.ending, step.missing_count) == ("waited", UNKNOWN)


def test_late_spans_are_told_apart_from_repeated_ones(assembler, fleet):
    tables = fleet.step(0)
    add(assembler, 0.0, *tables[:3])
    (step,) = assembler.ready(WAIT)
    step.record.forwarded_whole = True
    first, second, third = add(assembler, WAIT + 1, tables[3], tables[3], tables[0])
    assert [len(late.table) for late in first.late] == [11]
    assert first.late[0].forwarded_whole
    assert (first.repeated, second.repeated, third.repeated) == (0, 11, 11)
    assert list(assembler.ready(math.inf)) == []


def test_steps_are_judged_in_order_though_a_later_one_is_complete_first(assembler, fleet):
    early, late = fleet.step(3), fleet.step(4)
    add(assembler, 0.0, early[0], *late)
    assert list(assembler.ready(0.4)) == []
    add(assembler, 0.4, *early[1:])
    assert steps_of(assembler.ready(0.4 + ORDER)) == [(3, "complete"), (4, "complete")]


def test_a_complete_step_waits_a_little_for_one_that_nobody_has_seen_yet(assembler, fleet):
    add(assembler, 0.0, *fleet.step(1))
    assert steps_of(assembler.ready(ORDER)) == [(1, "complete")]
    add(assembler, 1.0, *fleet.step(3))
    assert list(assembler.ready(1.0)) == []
    assert assembler.next_deadline() == 1.0 + ORDER
    add(assembler, 1.2, *fleet.step(2))
    assert steps_of(assembler.ready(1.2)) == [(2, "complete"), (3, "complete")]


def test_a_step_whose_turn_has_passed_is_late(assembler, fleet):
    add(assembler, 0.0, *fleet.step(5))
    list(assembler.ready(ORDER))
    (arrivals,) = add(assembler, 1.0, fleet.rank(0, 4))
    assert len(arrivals.late) == 1
    assert list(assembler.ready(math.inf)) == []


@pytest.mark.parametrize("absurd", [30_000, 2**31 - 1])
def test_one_absurd_number_does_not_make_every_later_step_late(assembler, fleet, absurd):
    add(assembler, 0.0, *fleet.step(5))
    assert steps_of(assembler.ready(ORDER)) == [(5, "complete")]
    add(assembler, 1.0, fleet.rank(0, absurd))
    assert steps_of(assembler.ready(1.0 + WAIT)) == [(absurd, "waited")]
    for now, step in ((10.0, 15), (11.0, 16)):
        add(assembler, now, *fleet.step(step))
        assert steps_of(assembler.ready(now + ORDER)) == [(step, "complete")]
    (arrivals,) = add(assembler, 12.0, fleet.rank(0, 14))
    assert len(arrivals.late) == 1


def test_late_spans_without_end_are_remembered_up_to_a_limit(assembler, fleet, monkeypatch):
    monkeypatch.setattr(assembling, "_MAX_OF_RECORD", 2_000)
    add(assembler, 0.0, *fleet.step(0))
    (step,) = assembler.ready(0.0)
    table = fleet.rank(0, 0)
    for n in range(1, 100):
        late = table.with_columns(span_id=np.arange(1_000 * n, 1_000 * n + 11, dtype="u8"))
        first, again = add(assembler, 1.0, late, late)
        assert len(first.late) == 1
        assert first.repeated == 0
        if n < 10:
            assert (again.late, again.repeated) == ([], 11)
    assert sum(map(len, step.record.ids.values())) <= 2_000


def test_late_spans_push_out_what_is_remembered_of_older_steps(assembler, fleet, monkeypatch):
    monkeypatch.setattr(assembling, "_MAX_REMEMBERED", 400)
    add(assembler, 0.0, *fleet.step(0), *fleet.step(1))
    assert steps_of(assembler.ready(0.0)) == [(0, "complete"), (1, "complete")]
    table = fleet.rank(0, 1)
    for n in range(1, 20):
        late = table.with_columns(span_id=np.arange(1_000 * n, 1_000 * n + 11, dtype="u8"))
        add(assembler, 1.0, late)
    assert list(assembler._instances["llama"].records) == [assembler._order[-1]]


def test_a_run_that_still_sends_is_not_the_one_that_is_forgotten(assembler, fleet, make_fleet):
    add(assembler, 0.0, *fleet.step(5))
    list(assembler.ready(ORDER))
    for n in range(1, 40):
        other = make_fleet()
        other.nonce += n
        add(assembler, float(n), *other.step(0))
        list(assembler.ready(float(n)))
        (arrivals,) = add(assembler, float(n), fleet.rank(0, 4))
        assert len(arrivals.late) == 1


def test_a_restarted_instance_counts_its_steps_anew(assembler, fleet, make_fleet):
    add(assembler, 0.0, *fleet.step(100))
    list(assembler.ready(ORDER))
    restarted = make_fleet()
    restarted.nonce += 1
    add(assembler, 1.0, *restarted.step(0))
    assert steps_of(assembler.ready(1.0 + ORDER)) == [(0, "complete")]


def test_instances_do_not_wait_for_each_other(assembler, fleet, make_fleet):
    add(assembler, 0.0, fleet.rank(0, 0), *make_fleet("qwen").step(0))
    (step,) = assembler.ready(0.0)
    assert step.instance == "qwen"


@pytest.mark.parametrize(
    "limits", [{"max_pending_steps": 2}, {"max_pending_spans": 30}, {"max_pending_mib": 1}]
)
def test_beyond_a_limit_the_oldest_step_is_judged_as_it_is(limits, fleet):
    assembler = Assembler(AssemblerConfig(decision_wait=WAIT, **limits))
    step = 0
    while not (ready := list(assembler.ready(0.0))):
        add(assembler, 0.0, fleet.rank(0, step))
        step += 1
        assert step < 2_000
    assert steps_of(ready) == [(0, "limit")]
    assert ready[0].missing_ranks == (1, 2, 3)


@pytest.mark.parametrize("limits", [{"max_pending_steps": 2}, {"max_pending_spans": 30}])
def test_beyond_a_limit_senders_may_be_made_to_wait_instead(limits, fleet):
    assembler = Assembler(AssemblerConfig(decision_wait=WAIT, over_limit="refuse", **limits))
    for step in range(3):
        assert not assembler.crowded
        add(assembler, 0.0, fleet.rank(0, step))
    assert assembler.crowded
    assert steps_of(assembler.ready(0.0)) == []
    assert steps_of(assembler.ready(WAIT)) == [(0, "waited"), (1, "waited"), (2, "waited")]
    assert not assembler.crowded


def test_a_step_of_too_many_spans_is_judged_as_it_is_and_no_other_instance_s(fleet, make_fleet):
    assembler = Assembler(AssemblerConfig(decision_wait=WAIT, max_step_spans=30))
    older = make_fleet("older")
    add(assembler, 0.0, older.rank(0, 0), fleet.rank(0, 0))
    add(assembler, 0.0, *(fleet.rank(rank, 1) for rank in (0, 1, 2)))
    ready = list(assembler.ready(0.0))
    assert [(step.instance, step.step, step.ending) for step in ready] == [
        ("llama", 0, "limit"),
        ("llama", 1, "limit"),
    ]
    (arrivals,) = add(assembler, 0.0, fleet.rank(3, 1))
    assert [len(late.table) for late in arrivals.late] == [11]


def test_a_step_of_many_spans_that_is_complete_is_nothing_special(fleet):
    assembler = Assembler(AssemblerConfig(decision_wait=WAIT, max_step_spans=40))
    add(assembler, 0.0, *fleet.step(0))
    assert steps_of(assembler.ready(0.0)) == [(0, "complete")]


def test_texts_count_as_memory(fleet):
    assembler = Assembler(AssemblerConfig(max_pending_mib=1))
    table = fleet.rank(0, 0)
    said = {row: {"text": "x" * 60_000} for row in range(len(table))}
    add(assembler, 0.0, replace(table, attributes=said), fleet.rank(0, 1))
    assert assembler.fill()[2] > 600_000
    add(assembler, 0.0, replace(fleet.rank(0, 2), attributes=said))
    assert steps_of(assembler.ready(0.0)) == [(0, "limit")]


def test_beyond_their_limit_the_instance_not_seen_for_longest_is_forgotten(fleet, make_fleet):
    assembler = Assembler(AssemblerConfig(max_instances=2))
    for name in ("a", "b", "a", "c"):
        add(assembler, 0.0, make_fleet(name).rank(0, 0))
    assert assembler.forgotten == ["b"]
    assert [step.instance for step in assembler.ready(0.0)] == ["b"]


def test_at_shutdown_everything_is_judged(assembler, fleet, make_fleet):
    add(assembler, 0.0, fleet.rank(0, 1), fleet.rank(0, 0), *make_fleet("qwen").step(7))
    assert steps_of(assembler.flush()) == [(0, "shutdown"), (1, "shutdown"), (7, "complete")]


def test_spans_of_no_rank_do_not_wait(assembler, fleet):
    mixed = concat([fleet.rank(-1, 0), fleet.rank(1, 0)])
    (arrivals,) = add(assembler, 0.0, mixed)
    assert [len(table) for table in arrivals.foreign] == [11]
    assert steps_of(assembler.flush()) == [(0, "shutdown")]
