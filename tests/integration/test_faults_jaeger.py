"""A fault on the way to a real Jaeger, with a fleet's settings: healthy steps are summarised.

sender -> gateway.yaml (queue on disk) -> kat process (log on disk) -> the same collector -> Jaeger

What is in Jaeger is held against what was sent, step by step, and against the books of both lives
of the processor, which count for themselves.
"""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass

import pytest

from kat_otel import semconv
from tests.integration.jaeger import Jaeger, Trace, attributes_of
from tests.integration.traffic import Instance, Sender, span_ids

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

INSTANCE = Instance("summarised")
HEALTHY, STEPS = 60, 160
"""So many steps, of which the fault is in those from HEALTHY on."""


def test_a_processor_killed_under_load_while_jaeger_is_away_explains_every_span(servers):
    jaeger = Jaeger.start(servers)
    endpoint, back = servers.endpoint(), servers.endpoint()
    kat = servers.kat("kat", back)
    gateway = servers.gateway(kat, endpoint=endpoint, back=back, traces=jaeger.endpoint)
    healthy = INSTANCE.steps(range(HEALTHY))
    faulty = INSTANCE.steps(range(HEALTHY, STEPS), faulty=True)
    sent = span_ids(healthy + faulty)
    with Sender(endpoint, patience=120) as sender:
        sender.send(healthy)
        jaeger.goes_away()
        sending = threading.Thread(target=sender.send, args=(faulty,), kwargs={"pause": 0.02})
        sending.start()
        first = servers.until("a life that ends at work", lambda: _end_at_work(kat, gateway))
        servers.restart(kat)
        sending.join()
        assert sender.acknowledged == sent
        assert sender.refused_for_good(b"\xff" * 100, INSTANCE.name) is not None
    jaeger.comes_back()
    servers.until("the processor", lambda: kat.books().healthy)
    second, steps = servers.until(
        "an explanation of every span", lambda: _explained(kat, first, jaeger, sent), within=120
    )

    both = f"{first}\n{second}"
    assert (first.lost, second.lost) == (0, 0), both
    assert first.total("invalid") + second.total("invalid") == 0, "the collector refused the poison"
    # A span that was at work when the processor died may have two fates, and be counted twice.
    twice = first.taken - first.pending + second.taken - len(sent)
    at_jaeger = sum(len(step.spans) for step in steps)
    summarised = first.total("summarised") + second.total("summarised")
    unexplained = len(sent) - at_jaeger - summarised
    assert -twice <= unexplained <= 0, both
    assert first.total("forwarded") + second.total("forwarded") >= at_jaeger, both
    # What leaves, leaves as a trace that can be read: one root, no orphan, and it says what is
    # not there. Of the fault no step is left out, and the first ones are whole.
    torn = [step for step in steps if step.spans and not step.trace.roots]
    for step in steps:
        if step.trace.roots:
            assert len(step.trace.roots) == 1, f"step {step.number}"
            assert not step.trace.orphans, f"step {step.number}"
            assert step.said.get(semconv.ANOMALOUS, False) == (step.number >= HEALTHY)
    # But for those that were too late to be judged: the death tore them and the collector brought
    # the rest after the deadline, or all of them after the step that follows. They are there,
    # whole and marked, and the processor has counted them.
    late = sum(books.events.get("late spans", 0) for books in (first, second))
    assert sum(len(step.spans) for step in torn) <= late, [step.number for step in torn]
    for step in torn:
        marks = (attributes_of(step.trace.spans[span_id]) for span_id in step.spans)
        assert all(said.get(semconv.LATE) for said in marks), f"step {step.number}"
    assert any(not step.spans for step in steps), "no step was summarised whole"
    whole = [step for step in steps if len(step.spans) == step.sent and step not in torn]
    assert len(whole) >= 10
    assert {one for step in whole for one in step.said[semconv.INCIDENT_IDS]} == {
        one for step in steps for one in step.said.get(semconv.INCIDENT_IDS, [])
    }


@dataclass(frozen=True)
class Step:
    """What became of one step."""

    number: int
    sent: int
    """Spans."""
    trace: Trace
    spans: set[int]
    """Those of the sent that are in Jaeger: the root is none of them."""

    @property
    def said(self):
        """What the root says."""
        return attributes_of(self.trace.roots[0]) if self.trace.roots else {}

    @property
    def explained(self):
        """Whether all is there, or its root counts what is not; of no fault all may be left out."""
        if not self.spans:
            return self.number < HEALTHY
        return len(self.spans) + self.said.get(semconv.REDUCED_COUNT, 0) >= self.sent


def _end_at_work(kat, gateway):
    """Kills the processor with work under way, and returns its books, exact to the span.

    With the collector stopped nothing comes in and nothing gets out: the books stand still.
    """
    gateway.signal(signal.SIGSTOP)
    try:
        books = kat.books()
        while (later := _a_moment_later(kat)) != books:
            books = later
        if books.pending == 0 or books.events.get("steps complete", 0) < HEALTHY + 20:
            return None
        kat.kill()
        return books
    finally:
        gateway.signal(signal.SIGCONT)


def _a_moment_later(kat):
    time.sleep(0.2)  # that nothing happens is no event
    return kat.books()


def _explained(kat, first, jaeger, sent):
    """The books of the second life and the steps, once there is a fate for every span."""
    steps = []
    for number in range(STEPS):
        ids = span_ids(INSTANCE.steps([number], faulty=number >= HEALTHY))
        trace = jaeger.trace(INSTANCE.trace_id(number))
        steps.append(Step(number, len(ids), trace, ids & trace.spans.keys()))
    second = kat.books()
    at_jaeger = sum(len(step.spans) for step in steps)
    summarised = first.total("summarised") + second.total("summarised")
    if unexplained := [step.number for step in steps if not step.explained]:
        print(f"not explained yet: steps {unexplained}")  # noqa: T201 - shown when time is up
        return None
    return (second, steps) if not second.pending and at_jaeger + summarised >= len(sent) else None
