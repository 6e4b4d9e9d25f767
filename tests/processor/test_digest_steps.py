"""Steps with digests alone are judged together: in order, in time, and none is lost."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from kat_otel import semconv
from kat_otel.analyzer import with_diagnoses
from kat_otel.config import Config
from kat_otel.digest import with_digests
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import slow_rank
from kat_otel.lmdia.recording import Group, record
from kat_otel.processor import digest_steps
from kat_otel.processor.assembler import Assembler
from kat_otel.processor.digest_spans import DigestSpans, digests_in
from kat_otel.processor.intake import Batch
from kat_otel.processor.judges import Judges
from kat_otel.processor.ledger import Ledger
from kat_otel.processor.pipeline import Pipeline
from kat_otel.processor.replay import stamp
from kat_otel.spans import SpanTable, concat
from kat_otel.telemetry import Books
from kat_otel.ttad import Detector, Settings
from kat_otel.verdict import to_json

RANKS = 4
WAIT = 0.25


class Watched(Detector):
    """A detector that notes how it was called, and fails where it is told to."""

    def __init__(self, calls: list, poison: set[int]) -> None:
        super().__init__(Settings())
        self.calls, self.poison = calls, poison

    def judge(self, table: SpanTable):
        self._swallow(table)
        self.calls.append(int(table.step[0]))
        return super().judge(table)

    def judge_steps(self, table: SpanTable, bounds):
        self._swallow(table)
        self.calls.append(table.step[bounds[:-1]].tolist())
        return super().judge_steps(table, bounds)

    def _swallow(self, table: SpanTable) -> None:
        if self.poison & set(table.step.tolist()):
            raise RuntimeError("poisoned")


class Exporter:
    """Keeps what is offered, as an exporter whose endpoint does not answer."""

    def __init__(self) -> None:
        self.payloads = []

    def offer(self, payload) -> bool:
        self.payloads.append(payload)
        return True


class Process:
    """A pipeline with its judges, books and ledger; batches are taken at moments of our choice."""

    def __init__(self, exporter: Exporter | None = None, **settings) -> None:
        self.calls: list = []
        self.poison: set[int] = set()
        self.reports = []
        self.settled: list[int] = []
        self.books, self.ledger = Books(), Ledger(self.settled.extend)
        self.judges = Judges(lambda: Watched(self.calls, self.poison), self.books)
        self.receipts = itertools.count(1)
        self.config = Config.model_validate({"metrics": {"interval": 0}, **settings})
        self.pipeline = Pipeline(
            self.config,
            self.judges,
            exporter,
            self.books,
            ledger=self.ledger,
            on_report=lambda report, table: self.reports.append((report, len(table))),
        )

    def take(self, table: SpanTable, now: float, *, recovered: bool = False) -> int:
        receipt = next(self.receipts)
        self.books.count("acknowledged", len(table))
        self.pipeline.take(Batch(table, now, 100, receipt), recovered=recovered)
        return receipt

    @property
    def judged(self) -> list[int]:
        return [report.steps[0].step if report.steps else -1 for report, _ in self.reports]


def digests(
    steps: int, *, ranks: int = RANKS, instance: str = "i", at=None, whole: frozenset = frozenset()
) -> list[SpanTable]:
    """Steps of an instance, each one table; those in ``whole`` have all their spans."""
    program = decode_program(replace(LLAMA_70B, layers=3), workers(ranks, instance=instance))
    table = record(Group(program, 7), range(steps), program_at=at and (lambda s: at(program, s)))
    table = stamp(table, instance, 1, None)
    keep = np.isin(table.step, list(whole))
    sent = with_digests(table, keep=keep)
    said = {
        row: values
        if semconv.DIGEST not in values or sent.step[row] in whole
        else {**values, semconv.SPAN_COUNT: 1, semconv.GROUP_SIZE: ranks}
        for row, values in sent.attributes.items()
    }
    sent = replace(sent, attributes=said)
    return [sent.take(sent.step == step) for step in range(steps)]


def test_steps_wait_for_the_next_and_are_judged_together():
    process = Process()
    for number, step in enumerate(digests(4)):
        process.take(step, 0.01 * number)
    assert process.calls == []
    assert process.pipeline.next_due() == pytest.approx(WAIT)
    assert process.pipeline.fill()[:2] == (4, 4 * RANKS)
    process.pipeline.advance(WAIT - 0.001)
    assert process.calls == []
    process.pipeline.advance(WAIT)
    assert process.calls == [[0, 1, 2, 3]]
    assert process.judged == [0, 1, 2, 3]
    assert process.books.balance().pending == 0
    assert process.pipeline.next_due() == math.inf
    assert process.pipeline.fill()[:2] == (0, 0)


def test_a_receipt_is_held_until_its_step_is_handled():
    process = Process()
    receipts = [process.take(step, 0.0) for step in digests(2)]
    assert process.settled == []
    assert len(process.ledger) == 2
    process.pipeline.advance(WAIT)
    assert process.settled == receipts
    assert len(process.ledger) == 0


def test_what_was_sent_of_a_step_holds_its_receipt_further():
    process = Process(exporter := Exporter())
    first, second = (process.take(step, 0.0) for step in digests(2))
    process.pipeline.advance(WAIT)
    (payload,) = exporter.payloads  # one healthy step in a second is shown
    assert payload.receipts == (first,)
    assert process.settled == [second]
    process.ledger.release(payload.receipts)
    assert process.settled == [second, first]


def test_without_an_interval_only_what_is_ready_at_once_is_judged_together():
    process = Process(digests={"judge_interval": 0})
    steps = digests(4)
    process.take(steps[0], 0.0)
    process.take(concat(steps[1:]), 0.1)
    assert process.calls == [[0], [1, 2, 3]]


@pytest.mark.parametrize("limit", ["MOST_STEPS", "MOST_SPANS", "MOST_IN_ALL"])
def test_not_more_than_there_is_room_for_waits(monkeypatch, limit: str):
    monkeypatch.setattr(digest_steps, limit, 3 if limit == "MOST_STEPS" else 3 * RANKS)
    process = Process()
    for step in digests(4):
        process.take(step, 0.0)
    assert process.calls == ([[0, 1, 2]] if limit != "MOST_IN_ALL" else [[0, 1, 2, 3]])


def test_a_whole_step_is_judged_after_those_that_wait_before_it():
    process = Process()
    for step in digests(6, whole=frozenset({3})):
        process.take(step, 0.0)
    assert process.calls == [[0, 1, 2], 3]
    process.pipeline.advance(WAIT)
    assert process.judged == [0, 1, 2, 3, 4, 5]


def test_instances_wait_apart():
    process = Process()
    for number, (one, other) in enumerate(zip(digests(2), digests(2, instance="j"), strict=True)):
        process.take(one, 0.1 * number)
        process.take(other, 0.1 * number + 0.05)
    process.pipeline.advance(WAIT)
    assert process.calls == [[0, 1]]
    process.pipeline.advance(WAIT + 0.05)
    assert process.calls == [[0, 1], [0, 1]]


def test_at_shutdown_what_waits_is_judged():
    process = Process()
    for step in digests(3):
        process.take(step, 0.0)
    process.pipeline.finish(0.01, keep=True)
    assert process.calls == [[0, 1, 2]]
    assert process.books.balance().pending == 0
    assert len(process.ledger) == 0


def test_at_shutdown_a_step_that_lacks_a_rank_stays_in_the_log():
    process = Process()
    first, second = digests(2)
    process.take(first, 0.0)
    receipt = process.take(second.take(second.rank != 2), 0.0)
    process.pipeline.finish(0.01, keep=True)
    assert process.judged == [0]
    assert receipt not in process.settled


def test_an_instance_that_is_forgotten_is_judged_first():
    process = Process(assembler={"max_instances": 1})
    process.take(digests(1)[0], 0.0)
    process.take(digests(1, instance="j")[0], 0.0)
    assert process.judged == [0]
    assert process.reports[0][0].instance.id == "i"
    assert process.pipeline.fill()[0] == 1


def test_new_settings_hold_for_those_that_wait():
    process = Process()
    first, *others = digests(3)
    process.take(first, 0.0)
    process.pipeline.reload(Config.model_validate({"digests": {"judge_interval": 2}}))
    process.pipeline.advance(1.0)
    assert process.calls == []
    process.pipeline.reload(Config.model_validate({"digests": {"enabled": False}}))
    process.take(others[0], 1.0)
    assert process.calls == [[0], 1]  # from now on each is judged as what it is, in order


def test_a_bad_step_does_not_take_the_others_down():
    process = Process()
    process.poison.add(2)
    for step in digests(5):
        process.take(step, 0.0)
    process.pipeline.advance(WAIT)
    assert process.judged == [0, 1, -1, 3, 4]
    (unjudged,) = (report for report, _ in process.reports if report.abstained)
    assert unjudged.abstained.reason == "internal error"
    assert process.books.marked("steps failed") == 1
    assert process.books.marked("steps not judged together") == 5
    assert process.books.balance().pending == 0
    assert len(process.ledger) == 0


def test_a_rank_that_is_missing_is_named_as_ever():
    process = Process()
    for step in digests(2):
        process.take(step.take(step.rank != 2), 0.0)
    process.pipeline.advance(5.0)
    process.pipeline.advance(5.0 + WAIT)
    assert process.calls == [[0, 1]]
    for report, spans in process.reports:
        assert spans == RANKS - 1
        assert any("ranks 2 did not close the step" in note for note in report.coverage.notes)
        assert report.abstained is not None


def test_a_digest_that_comes_again_or_late_is_told_apart():
    process = Process()
    first, second = digests(2)
    part = first.take(first.rank != 2)
    again = process.take(part, 0.0), process.take(part, 0.0)
    assert process.settled == [again[1]]
    assert process.books.balance().counts["dropped:repeated"] == RANKS - 1
    process.pipeline.advance(5.0)
    process.take(first.take(first.rank == 2), 5.1)  # waits for its verdict, all the same
    assert process.books.marked("late spans") == 1
    process.take(second, 5.1)
    process.pipeline.advance(6.0)
    assert process.judged == [0, 1]
    assert process.calls == [[0, 1]]


def test_what_a_former_process_may_have_judged_in_part_is_passed_on():
    process = Process(exporter := Exporter())
    (step,) = digests(1)
    process.take(step.take(step.rank != 2), 0.0, recovered=True)
    process.pipeline.advance(5.0 + WAIT)
    assert process.calls == []
    assert process.books.marked("steps in part after a restart") == 1
    assert len(exporter.payloads) == 1


def test_more_spans_of_a_rank_than_it_told_of_make_it_a_step_of_any_kind():
    process = Process()
    (step,) = digests(1)
    (whole,) = digests(1, whole=frozenset({0}))
    process.take(step.take(step.rank != 3), 0.0)
    rest = whole.take((whole.rank == 1) & ~np.isin(whole.span_id, step.span_id))
    process.take(rest, 0.0)
    process.take(step.take(step.rank == 3), 0.0)
    assert process.calls == [0]
    ((_, spans),) = process.reports
    assert spans == RANKS + len(rest)


@pytest.mark.parametrize("together", [1, 5, 11])
@pytest.mark.parametrize("by_rank", [False, True])
def test_incidents_are_those_of_one_step_after_the_other(together: int, by_rank: bool):
    steps = digests(
        33, at=lambda program, s: slow_rank(program, 2, 30).program if 14 <= s < 25 else program
    )
    detector, expected = Detector(), []
    for step in steps:
        expected += [to_json(i) for i in with_diagnoses(detector.judge(step)).incidents]
    process = Process(Exporter())
    for first in range(0, len(steps), together):
        batch = concat(steps[first : first + together])
        parts = [batch.take(batch.rank == rank) for rank in range(RANKS)] if by_rank else [batch]
        for part in parts:
            process.take(part, 0.1 * first)
    process.pipeline.advance(10.0)
    assert [to_json(i) for report, _ in process.reports for i in report.incidents] == expected
    assert expected


def test_a_few_digests_do_not_keep_a_large_batch_in_memory():
    (whole,) = digests(1, whole=frozenset({0}))
    steps = digests(2)
    found, rest = digests_in(concat([steps[1], whole]))
    assert len(found) == RANKS
    assert len(rest) == len(whole)
    assert {len(span.table) for span in found} == {RANKS}
    assert [span.rank for span in found] == [0, 1, 2, 3]


def test_digests_come_back_as_they_came():
    steps = digests(3)
    batch = concat(steps)
    assembler = Assembler(Config().assembler)
    for rank in (2, 0, 3, 1):
        assembler.add(batch.take(batch.rank == rank), 0.0)
    ready = list(assembler.ready(0.0))
    assert all(isinstance(step.spans, DigestSpans) for step in ready)
    for sent, came in zip(steps, ready, strict=True):
        trace_id = f"{int(sent.trace_hi[0]):016x}{int(sent.trace_lo[0]):016x}"
        assert came.trace_id == trace_id
        table = came.table
        assert came.trace_id == trace_id
        assert table.rank.tolist() == [0, 1, 2, 3]
        for name in ("span_id", "parent_id", "start_ns", "duration_ns", "name", "kind", "step"):
            assert getattr(table, name).tolist() == getattr(sent, name).tolist(), name
        assert [table.attributes[row] for row in range(4)] == [
            sent.attributes[row] for row in range(4)
        ]
