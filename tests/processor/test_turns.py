"""Runs of an instance do not wait for each other; micro-batches of a step are judged each."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kat_otel import semconv
from kat_otel.capture import capture_nonce
from kat_otel.config import AssemblerConfig
from kat_otel.instrumentation.sending.digests import Digests
from kat_otel.instrumentation.sending.ids import digest_span, identified, with_digest
from kat_otel.instrumentation.sending.pack import Packer, request
from kat_otel.lmdia.recording import Group
from kat_otel.otlp import decode_traces
from kat_otel.processor.assembler import Assembler
from kat_otel.processor.digest_spans import DigestSpans
from kat_otel.spans import SpanKind, SpanTable
from tests.instrumentation.simulated import NONCE, bare, program_of, steps_of, worker_of

WAIT, ORDER = 5.0, 0.5
RANKS = 2
GROUP = Group(program_of(RANKS), 5)


@pytest.fixture
def assembler() -> Assembler:
    return Assembler(AssemblerConfig(decision_wait=WAIT, order_wait=ORDER))


def recorded_of(make_fleet, capture: str):
    """The fleet whose steps are those of a capture: the same instance, a nonce of their own."""
    fleet = make_fleet()
    fleet.nonce = capture_nonce(fleet.nonce, capture)
    return fleet


def stream(assembler: Assembler, fleet, steps: range, extra: dict[int, list[SpanTable]]):
    """Sends steps ten a second, of which one always lacks a rank; yields what is judged when."""
    for step in steps:
        now = 0.1 * step
        before, after = fleet.step(step - 1)[-1:], fleet.step(step)[:-1]
        # The last rank of a step comes after the first ones of the next: one is always pending.
        for table in [*after, *before, *extra.get(step, [])]:
            assembler.add(table, now)
        yield from ((now, one) for one in assembler.ready(now))


def is_of(fleet, step) -> bool:
    return step.trace[0] == int(fleet.rank(0, 0).trace_hi[0])


def test_recorded_steps_are_judged_while_the_stream_goes_on(assembler, fleet, make_fleet):
    recorded = recorded_of(make_fleet, "a")
    extra = {40: recorded.step(33), 41: recorded.step(34)}
    judged = list(stream(assembler, fleet, range(1, 100), extra))
    when = {step.step: now for now, step in judged if is_of(recorded, step)}
    assert when == pytest.approx({33: 4.0 + ORDER, 34: 4.0 + ORDER})
    live = [step.step for _, step in judged if is_of(fleet, step)]
    assert live == list(range(live[0], 99))
    assert {step.ending for _, step in judged if step.step} == {"complete"}


def test_every_run_keeps_its_own_order(assembler, fleet, make_fleet):
    recorded = [recorded_of(make_fleet, name) for name in ("a", "b")]
    extra = {
        40: [*recorded[0].step(35), *recorded[1].step(31)],
        42: [*recorded[0].step(34), *recorded[1].step(30)[1:]],
        44: [*recorded[0].step(33), *recorded[1].step(30)[:1]],
    }
    judged = list(stream(assembler, fleet, range(1, 100), extra))
    ours = [[step.step for _, step in judged if is_of(run, step)] for run in recorded]
    assert ours == [[33, 34, 35], [30, 31]]


def test_a_run_that_lacks_a_rank_holds_up_itself_alone(assembler, fleet, make_fleet):
    recorded = recorded_of(make_fleet, "a")
    extra = {20: [*recorded.step(15)[1:], *recorded.step(16)]}
    judged = list(stream(assembler, fleet, range(1, 100), extra))
    ours = [(now, step.step, step.ending) for now, step in judged if is_of(recorded, step)]
    assert ours == [(2.0 + WAIT, 15, "waited"), (2.0 + WAIT, 16, "complete")]
    live = [step.step for now, step in judged if is_of(fleet, step) and now < 2.0 + WAIT]
    assert live[-1] == 68


def test_at_a_limit_and_at_the_end_the_run_that_came_first_goes_first(fleet, make_fleet):
    assembler = Assembler(AssemblerConfig(decision_wait=WAIT, max_pending_steps=2))
    recorded = recorded_of(make_fleet, "a")
    for table in (fleet.rank(0, 9), recorded.rank(0, 3), recorded.rank(0, 2)):
        assembler.add(table, 0.0)
    assert [(step.step, step.ending) for step in assembler.ready(0.0)] == [(9, "limit")]
    assert [(step.step, step.ending) for step in assembler.flush()] == [
        (2, "shutdown"),
        (3, "shutdown"),
    ]


def test_runs_without_end_are_not_remembered(assembler, fleet, make_fleet):
    for number in range(100):
        assembler.add(recorded_of(make_fleet, str(number)).rank(0, 7), float(number))
        list(assembler.ready(float(number)))
    turns = assembler._instances["llama"]
    assert len(turns.runs) <= 16
    assert len(turns.waiting) == len(turns.pending) <= WAIT + 1
    assert len(list(assembler.flush())) == len(turns.records) - 100 + WAIT
    assert turns.waiting == {}


def sent(step: int, micro: int, *, whole: bool) -> list[SpanTable]:
    """What each rank sends of a micro-batch: its digest, or all its spans."""
    tables: list[SpanTable] = []
    for rank, one in enumerate(steps_of(GROUP, step)):
        made, worker = bare(one.table, micro=micro), worker_of(GROUP, rank)
        if whole:
            digest = with_digest(made, worker, Digests(), named=True)
            tables.append(identified(digest, rank, NONCE, step, micro))
        else:
            said = digest_span(Packer(), made, worker, Digests(), named=True)
            tables.append(decode_traces(b"".join(request(worker.resource, [said]))))
    return tables


@pytest.mark.parametrize("whole", [False, True], ids=["digests", "whole"])
@pytest.mark.parametrize("by_rank", [False, True])
def test_micro_batches_of_a_step_are_judged_each(assembler, whole: bool, by_rank: bool):
    order = list(itertools.product(range(3), range(2)))  # steps of two micro-batches each
    batches = [[sent(step, micro, whole=whole)[rank] for step, micro in order] for rank in (0, 1)]
    late, judged = 0, []
    sending = (
        [table for batch in batches for table in batch]
        if by_rank
        else [table for pair in zip(*batches, strict=True) for table in pair]
    )
    for now, table in enumerate(sending):
        late += len(assembler.add(table, 0.01 * now).late)
        judged += assembler.ready(0.01 * now)
    assert late == 0
    assert {isinstance(step.spans, DigestSpans) for step in judged} == {not whole}
    assert [(step.step, said(step.table, semconv.MICRO)) for step in judged] == order
    assert {step.ending for step in judged} == {"complete"}
    assert len({step.trace for step in judged}) == len(order)


@pytest.mark.parametrize("whole", [False, True], ids=["digests", "whole"])
def test_a_micro_batch_is_late_when_a_later_step_was_judged_or_its_own_trace(assembler, whole):
    first, second = sent(0, 0, whole=whole), sent(0, 1, whole=whole)
    assembler.add(first[0], 0.0)
    assert [step.ending for step in assembler.ready(WAIT)] == ["waited"]
    assert len(assembler.add(first[1], WAIT).late) == 1  # of the trace that was judged
    assert len(assembler.add(second[0], WAIT).late) == 0
    for table in sent(1, 0, whole=whole):
        assembler.add(table, WAIT)
    assert list(assembler.ready(WAIT)) == []  # the second micro-batch comes before the next step
    assert [step.step for step in assembler.ready(2 * WAIT)] == [0, 1]
    assert len(assembler.add(sent(0, 2, whole=whole)[0], 2 * WAIT).late) == 1


def said(table: SpanTable, key: str) -> int:
    """What the first worker step says; 0 where it says nothing."""
    (row, *_) = np.flatnonzero(table.kind == SpanKind.WORKER_STEP).tolist()
    value = table.attributes[row].get(key, 0)
    assert isinstance(value, int)
    return value
