"""Killed between any two of its acts, and whatever is heard or not: every span arrives."""

from __future__ import annotations

from collections import deque
from functools import cache

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from kat_otel.config import Config
from kat_otel.otlp import decode_traces, encode_traces
from kat_otel.processor.exporter import Payload
from kat_otel.processor.intake import Batch
from kat_otel.processor.judges import Judges
from kat_otel.processor.ledger import Ledger
from kat_otel.processor.pipeline import Pipeline
from kat_otel.spans import SpanTable, concat
from kat_otel.telemetry import Books
from tests.processor.conftest import Fleet, StandInJudge

STEPS = 4
ALL_WHOLE = {"healthy": "all", "healthy_interval": 0}


@cache
def requests() -> tuple[SpanTable, ...]:
    """Four steps of three ranks: one sends a step in two parts, one sends two steps at once."""
    fleet, tables = Fleet(world_size=3), []
    for step in range(STEPS):
        whole, parted = fleet.rank(0, step), fleet.rank(1, step)
        rows = np.arange(len(parted))
        tables += [whole, parted.take(rows < 4), parted.take(rows >= 4)]
    for step in range(0, STEPS, 2):
        tables.append(concat([fleet.rank(2, step), fleet.rank(2, step + 1)]))
    return tuple(decode_traces(b"".join(encode_traces(table))) for table in tables)


def ids(table: SpanTable) -> set[int]:
    return set(table.span_id.tolist())


class Way(RuleBasedStateMachine):
    """Sender, log, judging thread, exporter and endpoint, each of which acts when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.unsent = list(range(len(requests())))
        self.log: dict[int, SpanTable] = {}
        self.receipt = 0
        self.arrived: set[int] = set()

    @initialize(remembered=st.sampled_from([1, 128]), steps=st.sampled_from([2, 1000]))
    def begin(self, remembered: int, steps: int) -> None:
        assembler = {"remembered_steps": remembered, "max_pending_steps": steps}
        self.config = Config.model_validate(
            {"assembler": assembler, "metrics": {"interval": 0}, "traces": ALL_WHOLE}
        )
        self.kill()

    @rule()
    def kill(self) -> None:
        """All that is not in the log is gone; the next process begins."""
        self.books, self.settled = Books(), set[int]()
        self.leaving: deque[Payload] = deque()
        self.queue = deque((receipt, table, True) for receipt, table in self.log.items())
        self.ledger = Ledger(self.settled.update)
        self.pipeline = Pipeline(
            self.config,
            Judges(StandInJudge, self.books),
            self,
            self.books,
            ledger=self.ledger,
            now=self.clock,
        )

    @precondition(lambda self: self.unsent)
    @rule(which=st.integers(0, 100), heard=st.booleans())
    def send(self, which: int, heard: bool) -> None:
        """A request is logged and queued; a sender who does not hear of it sends it again."""
        number = self.unsent[which % len(self.unsent)]
        if heard:
            self.unsent.remove(number)
        self.receipt += 1
        self.log[self.receipt] = requests()[number]
        self.books.count("acknowledged", len(requests()[number]))
        self.queue.append((self.receipt, requests()[number], False))

    @precondition(lambda self: self.queue)
    @rule()
    def take(self) -> None:
        receipt, table, recovered = self.queue.popleft()
        if recovered:
            self.books.count("recovered", len(table))
        self.pipeline.take(Batch(table, self.clock, 0, receipt), recovered=recovered)

    @rule(seconds=st.sampled_from([0.3, 1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.clock += seconds
        if not self.queue:
            self.pipeline.advance(self.clock)

    @precondition(lambda self: self.leaving)
    @rule(heard=st.booleans())
    def leave(self, heard: bool) -> None:
        """The endpoint takes a request; an exporter that does not hear of it tries again."""
        payload = self.leaving[0]
        if payload.signal == "traces":
            self.arrived |= ids(decode_traces(payload.data))
        if heard:
            self.leaving.popleft()
            self.books.count("forwarded", payload.spans)
            self.ledger.release(payload.receipts)

    @rule()
    def forget(self) -> None:
        for receipt in self.settled:
            self.log.pop(receipt, None)

    def offer(self, payload: Payload) -> bool:
        self.leaving.append(payload)
        return True

    def teardown(self) -> None:
        if not hasattr(self, "config"):
            return
        while self.unsent:
            self.send(0, heard=True)
        while self.queue:
            self.take()
        self.wait(60.0)
        while self.leaving:
            self.leave(heard=True)
        self.forget()
        assert set().union(*map(ids, requests())) <= self.arrived
        assert self.books.balance().pending == 0
        assert set(self.books.balance().counts) <= {
            "acknowledged",
            "recovered",
            "forwarded",
            "dropped:repeated",
        }
        assert not self.log
        assert len(self.ledger) == 0


Way.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestWay = Way.TestCase
