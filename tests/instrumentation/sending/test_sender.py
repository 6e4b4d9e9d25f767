"""The loop: what leaves for which step, who may change that, and what a defect may not do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from kat_otel import semconv
from kat_otel.capture import Capture, Orders, Poll, capture_nonce
from kat_otel.digest import decode
from kat_otel.identity import trace_ids
from kat_otel.instrumentation.capture.records import OVERHEAD, Batch, Loss
from kat_otel.instrumentation.sending.control import Control
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.export import Exporter, deliveries
from kat_otel.instrumentation.sending.sender import OPERATOR, Sender
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.step import Step
from kat_otel.lmdia.recording import Group
from kat_otel.spans import SpanTable, concat
from tests.instrumentation.simulated import (
    NONCE,
    Collector,
    Request,
    Track,
    steps_of,
    worker_of,
)

BASE = "OTEL_EXPORTER_OTLP_"
NONE = (1, 0)


class StandInControl(Control):
    """Orders as the test gives them, without a server; keeps what the worker says of itself."""

    def __init__(self) -> None:
        super().__init__(Settings(control_endpoint="http://127.0.0.1:9"), Counts())
        self.given: Orders | None = None
        self.polls: list[Poll] = []

    @property
    def orders(self) -> Orders | None:
        return self.given

    def start(self) -> None:
        pass

    def at(self, poll: Poll) -> None:
        self.polls.append(poll)


class Running:
    """A sender of rank 1 in a thread, and what the collector got of it."""

    def __init__(self, group: Group, collector: Collector, settings: Settings) -> None:
        self.group, self.collector = group, collector
        self.counts = Counts()
        self.track = Track(worker_of(group, 1))
        self.control = StandInControl()
        self.ticks: list[str] = []
        exporter = Exporter(
            deliveries({f"{BASE}ENDPOINT": collector.url}), self.counts, first_wait=0.01
        )
        self.sender = Sender(
            settings,
            self.track,
            self.track,
            exporter,
            self.control,
            counts=self.counts,
            on_tick=lambda worker, _: self.ticks.append(worker.resource.instance),
        )
        self.thread = threading.Thread(target=self.sender.run, args=(5.0,))

    def steps(self, numbers: Sequence[int]) -> None:
        self.track.put(*(self.step(number) for number in numbers))

    def step(self, number: int, **said: object) -> Step:
        return replace(steps_of(self.group, number)[1], **said)

    @property
    def table(self) -> SpanTable:
        requests = [r for r in self.collector.requests if r.path == "/v1/traces"]
        return concat([SpanTable.empty(), *(r.table for r in requests)])

    def wait_for(self, condition: Callable[[SpanTable], bool]) -> None:
        def holds(_: Sequence[Request]) -> bool:
            return condition(self.table)

        self.collector.wait_for(holds)

    def whole(self, nonce: int = NONCE) -> set[int]:
        """Steps that came whole under the traces of a nonce."""
        table = self.table
        found = set()
        for step in set(table.step.tolist()):
            _, low = trace_ids(nonce, np.array([step]))
            rows = (table.step == step) & (table.trace_lo == low[0])
            if rows.sum() > 1:
                found.add(step)
        return found


@pytest.fixture
def start(pair: Group, collector: Collector) -> Iterator[Callable[..., Running]]:
    begun: list[Running] = []

    def make(**settings: object) -> Running:
        said = {"sample_every": 0, "budget": 0.0} | settings
        running = Running(pair, collector, Settings(**said))
        running.thread.start()
        begun.append(running)
        return running

    yield make
    for running in begun:
        running.sender.end()
        running.thread.join(15)
        assert not running.thread.is_alive()
        assert running.track.closed


@contextmanager
def ended(running: Running) -> Iterator[None]:
    """After the worker's own end."""
    running.track.put(None)
    running.thread.join(15)
    assert not running.thread.is_alive()
    yield


def test_digests_of_many_steps_leave_in_few_requests(start, collector: Collector) -> None:
    running = start()
    running.steps(range(130))
    with ended(running):
        table = running.table
    assert sorted(table.step.tolist()) == list(range(130))
    assert len(collector.requests) <= 10
    for row, said in table.attributes.items():
        assert said[semconv.SPAN_COUNT] == 1
        assert decode(said[semconv.DIGEST]).kernels > 0
        named = semconv.DIGEST_NAMES in said
        assert named == (int(table.step[row]) in {0, 64, 128})


def test_a_digest_waits_for_others_only_so_long(start) -> None:
    running = start()
    running.steps([5])
    running.wait_for(lambda table: len(table) == 1)
    assert running.table.resources[0].rank == 1


def test_sampled_steps_leave_whole_with_their_digest(start) -> None:
    running = start(sample_every=4)
    running.steps(range(9))
    with ended(running):
        assert running.whole() == {0, 4, 8}
        table = running.table
    for row, said in table.attributes.items():
        rows = int((table.step == table.step[row]).sum())
        assert said[semconv.SPAN_COUNT] == rows
        assert semconv.DIGEST in said


def test_a_capture_gets_recorded_steps_again_and_next_ones_whole(start) -> None:
    running = start()
    running.steps(range(10))
    running.wait_for(lambda table: len(table) == 10)
    running.control.given = Orders(captures=(Capture("ab", (7, 11), (14, 15), ""),))
    running.steps(range(10, 18))
    with ended(running):
        assert running.whole(capture_nonce(NONCE, "ab")) == {7, 8, 9, 10, 11}
        assert running.whole() == {14, 15}
    digests = [s for s in running.table.attributes.values() if semconv.DIGEST in s]
    assert len(digests) == 18  # each step was judged once, under its own trace
    assert running.counts["captures.steps"] == 5


def test_what_is_no_longer_recorded_is_counted(start) -> None:
    running = start(recorder_seconds=0.0)
    running.control.given = Orders(captures=(Capture("ab", (2, 4), NONE, ""),))
    running.steps(range(10))
    with ended(running):
        assert running.whole(capture_nonce(NONCE, "ab")) == set()
    assert running.counts["captures.missed"] == 3


def test_an_operator_gets_what_is_recorded(start) -> None:
    running = start()
    running.steps(range(5))
    running.wait_for(lambda table: len(table) == 5)
    running.sender.send_recorded()
    running.wait_for(lambda _: running.whole(capture_nonce(NONCE, OPERATOR)) == {0, 1, 2, 3, 4})


def test_an_operator_switches_off_and_on_again(start) -> None:
    running = start()
    running.track.wait_ordered("full")
    running.sender.toggle()
    running.track.wait_ordered("off")
    running.steps([1])
    running.sender.toggle()
    running.track.wait_ordered("full")
    running.steps([2])
    running.wait_for(lambda table: 2 in table.step)
    with ended(running):
        assert running.counts["steps.dropped:off"] + running.counts["steps"] == 2


def test_the_control_channel_switches_off_within_a_turn(start) -> None:
    running = start(sample_every=1)
    running.control.given = Orders(mode="off")
    running.track.wait_ordered("off")
    running.steps([1, 2])
    running.control.given = Orders(mode="digest", sample_every=1)
    running.track.wait_ordered("digest")
    running.steps([3])
    running.wait_for(lambda table: 3 in table.step)
    with ended(running):
        assert running.whole() == set()


def test_the_worker_says_where_it_is(start) -> None:
    running = start()
    running.steps(range(5))
    running.wait_for(lambda table: len(table) == 5)
    with ended(running):
        assert running.control.polls[-1] == Poll("llama", 1, 4, 0)
    assert set(running.ticks) == {"llama"}


def test_above_the_budget_less_is_recorded(start) -> None:
    running = start(budget=0.001)
    running.track.wait_ordered("full")
    busy = 0
    for number in range(40):  # half a second each, of which capture took 10 ms
        step = running.step(number)
        long = step.table.duration_ns.copy()
        long[0] = 500_000_000
        busy += 10_000_000
        running.track.put(replace(step, table=step.table.with_columns(duration_ns=long)))
        running.track.put(Batch(busy_ns=busy))
    running.track.wait_ordered("off")
    assert running.track.orders == ["full", "digest", "off"]
    assert running.counts.read()[1]["mode"] == 2


def test_only_what_tracing_costs_counts_as_overhead(start) -> None:
    running = start(budget=0.5)
    overheads = np.zeros(2, OVERHEAD)
    overheads["end"] = 10**12
    overheads["kind"] = [1, 5 << 16]  # the program compiles and loads its own kernels
    running.track.put(Batch(overheads=overheads))
    running.steps(range(200))
    with ended(running):
        assert running.track.orders == ["full"]


def test_what_capture_lost_is_counted_once(start) -> None:
    running = start()
    running.track.put(Batch(loss=Loss(records=5)), Batch(loss=Loss(records=7, messages=1)))
    running.track.put(running.step(1, lost=2))
    with ended(running):
        assert running.counts["lost:messages"] == 1
        assert running.counts["lost:records"] == 7
        (said,) = running.table.attributes.values()
    assert said[semconv.DROPPED_COUNT] == 2


def test_a_step_that_makes_no_sense_is_left_out(start, caplog) -> None:
    running = start()
    broken = replace(running.step(2), table=SpanTable.empty())
    running.track.put(running.step(1), broken, running.step(3))
    with ended(running):
        assert sorted(running.table.step.tolist()) == [1, 3]
    assert running.counts["steps.failed"] >= 1
    assert "steps.failed: counted, and left out" in caplog.text


def test_a_source_that_fails_is_asked_again(start) -> None:
    running = start()
    running.track.defects = [RuntimeError("one"), RuntimeError("two")]
    running.steps([1, 2, 3])  # two of them fall to the defects
    with ended(running):
        assert running.table.step.tolist() == [3]
    assert running.counts["batches.failed"] == 2


def test_metrics_that_fail_stop_nothing(start) -> None:
    running = start()
    running.sender._on_tick = lambda *_: 1 / 0
    running.steps([1])
    running.wait_for(lambda table: 1 in table.step)
    assert running.counts["metrics.failed"] >= 1


def test_steps_of_nobody_are_counted(start) -> None:
    running = start()
    running.track.worker = None
    running.steps([1, 2])
    with ended(running):
        assert len(running.table) == 0
    assert running.counts["steps.dropped:worker_unknown"] == 2


def test_steps_wait_until_the_worker_is_known(start) -> None:
    running = start()
    worker, running.track.worker = running.track.worker, None
    running.steps([1, 2])
    running.track.wait_taken(2)
    running.track.worker = worker
    running.wait_for(lambda table: {1, 2} <= set(table.step.tolist()))
    assert running.counts["steps.dropped:worker_unknown"] == 0


def test_what_is_there_leaves_when_it_is_told_to_end(start) -> None:
    running = start()
    running.steps(range(3))
    running.wait_for(lambda table: len(table) >= 1)
    running.sender.end()
    running.thread.join(15)
    assert sorted(running.table.step.tolist()) == [0, 1, 2]
