"""A model explains incidents that have left: what follows them, what it may cost, what can fail.

Over real HTTP to a server in a thread of the test, which answers well or badly.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kat_otel import semconv
from kat_otel.analyzer.endpoint import Client, Endpoint, Form
from kat_otel.analyzer.explain import Policy
from kat_otel.config import AnalyzerConfig
from kat_otel.processor.enrichment import Enrichment
from kat_otel.processor.exporter import Payload
from kat_otel.telemetry import Telemetry
from kat_otel.verdict import Incident
from tests.analyzer.incidents import late_launch, report, steal
from tests.analyzer.openai_server import Answering, Said, Server, keeps_schemas, serving
from tests.analyzer.test_check import good

SPAN = (b"\x01" * 16, b"\x02" * 8)
GOOD = json.dumps(good())
WRONG = json.dumps(good(culprit_ranks=[3]))


@dataclass
class Desk:
    """An enrichment under test, and all that it sends."""

    enrichment: Enrichment
    telemetry: Telemetry
    server: Server
    sent: list[Payload] = field(default_factory=list)
    shown: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def offer(self, incident: Incident, model: str = "llama-70b") -> None:
        self.enrichment.offer("i", incident, report(incident, model=model), SPAN)

    def counted(self, outcome: str) -> int:
        assert self.telemetry.explanations is not None
        return self.telemetry.explanations.outcomes().get(outcome, 0)  # type: ignore[call-overload]

    def until(self, holds: Callable[[], Any]) -> None:
        give_up = time.monotonic() + 20
        while not holds():
            assert time.monotonic() < give_up, self.telemetry.explanations.outcomes()
            time.sleep(0.005)  # counters offer no event

    def spans(self) -> list[Any]:
        return [
            ExportTraceServiceRequest.FromString(one.data).resource_spans[0].scope_spans[0].spans[0]
            for one in self.sent
            if one.signal == "traces"
        ]

    def events(self) -> list[Any]:
        return [
            ExportLogsServiceRequest.FromString(one.data)
            .resource_logs[0]
            .scope_logs[0]
            .log_records[0]
            for one in self.sent
            if one.signal == "logs"
        ]


@contextmanager
def desk(answer: Answering, *, form: Form | None = None, **settings: Any) -> Iterator[Desk]:
    with serving(answer) as server:
        config = AnalyzerConfig(
            **{"endpoint": server.url, "model": "m", "retries": 0, "timeout": 5.0} | settings
        )
        endpoint = Endpoint(
            server.url, "m", "sk-key", retries=config.retries, timeout_s=config.timeout
        )
        telemetry = Telemetry()

        def send(payload: Payload) -> bool:
            made.sent.append(payload)
            return True

        enrichment = Enrichment(
            config,
            Client(endpoint, form),
            Policy(deadline_s=config.deadline),
            send,
            telemetry,
            on_diagnosis=lambda incident, said: made.shown.append((incident.id, said)),
        )
        made = Desk(enrichment, telemetry, server)
        enrichment.start()
        try:
            yield made
        finally:
            server.going.set()
            enrichment.stop(10)


def always(text: str) -> Answering:
    return keeps_schemas(lambda _: Said(text))


def incident(name: str = "1f0c", **changes: Any) -> Incident:
    return msgspec.structs.replace(late_launch(more=(steal(),)), id=name, **changes)


def attributes(pairs: Any) -> dict[str, Any]:
    return {p.key: getattr(p.value, p.value.WhichOneof("value")) for p in pairs}


def test_a_diagnosis_follows_as_a_span_linked_to_the_culprits_and_as_a_log_event():
    with desk(always(GOOD)) as made:
        made.offer(incident())
        made.until(lambda: made.counted("model"))
    (span,), (event,) = made.spans(), made.events()
    assert span.name == "kat.diagnosis"
    ((link),) = span.links
    assert (link.trace_id, link.span_id) == SPAN
    assert span.trace_id != SPAN[0], "the step's trace stays as it was"
    said = attributes(span.attributes)
    assert said[semconv.INCIDENT_ID] == "1f0c"
    assert (said[semconv.DIAGNOSIS_MODE], said[semconv.MODEL]) == ("model", "m")
    assert said[semconv.REVISION] == 1
    assert said[semconv.ROOT_CAUSE] == "cpu_contention"
    assert json.loads(said[semconv.DIAGNOSIS])["mode"] == "model"
    assert (event.event_name, event.trace_id, event.span_id) == ("kat.diagnosis", *SPAN)
    assert attributes(event.attributes) == said
    assert made.shown[0][0] == "1f0c", "the kept page has it, too"
    assert b"sk-key" not in b"".join(payload.data for payload in made.sent)


def test_once_per_incident_and_again_only_when_its_evidence_changes():
    with desk(always(GOOD)) as made:
        made.offer(incident())
        made.until(lambda: made.counted("model"))
        other_numbers = msgspec.structs.replace(incident(), impact_ns=2_100_000, occurrences=99)
        made.offer(other_numbers)
        made.offer(late_launch(more=(steal(), steal(number=2))))
        made.until(lambda: made.counted("model") == 2)
    assert len(made.server.about) == 2
    assert [attributes(e.attributes)[semconv.REVISION] for e in made.events()] == [1, 2]


def test_the_same_facts_of_another_incident_are_answered_from_memory_with_its_own_names():
    with desk(always(GOOD)) as made:
        made.offer(incident())
        made.until(lambda: made.counted("model"))
        other = late_launch(more=(steal("node-9"),), host="node-9")
        made.offer(msgspec.structs.replace(other, id="2222"))
        made.until(lambda: made.counted("reused"))
    assert len(made.server.about) == 1
    first, second = (event.body.string_value for event in made.events())
    assert "node-0" in first
    assert "node-9" in second
    assert "node-0" not in second


def test_what_is_not_grounded_is_not_told_and_not_asked_again():
    with desk(always(WRONG)) as made:
        made.offer(incident())
        made.until(lambda: made.counted("rejected"))
        made.offer(incident())
        made.offer(incident("2222", impact_ns=1))
        made.until(lambda: made.counted("rejected") == 2)
    assert not made.sent
    assert made.telemetry.explanations.reasons()["culprit_outside"] == 2
    assert len(made.server.about) == 4, "two questions an incident"


FAULTS: dict[str, tuple[Said, str]] = {
    "500": (Said(status=500), "server_error"),
    "429": (Said(status=429, headers={"retry-after": "0"}), "overloaded"),
    "a wrong key": (Said(status=401), "not_allowed"),
    "no chat endpoint": (Said(raw=b"<html>hello</html>"), "unreachable"),
    "slow": (Said(GOOD, drip_s=0.2), "timeout"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_endpoint_that_fails_is_counted_by_reason_and_asked_when_there_is_news(fault: str):
    said, reason = FAULTS[fault]
    with desk(lambda _: said, deadline=1.0) as made:
        made.offer(incident())
        made.until(lambda: made.counted("failed") == 1)
        made.offer(incident())
        made.until(lambda: made.counted("failed") == 2)
    assert not made.sent
    assert made.telemetry.explanations.reasons()[reason] == 2


def test_retries_are_made_where_they_help_and_only_there():
    for status, requests in ((503, 2), (400, 1), (401, 1)):
        with desk(lambda _, s=status: Said(status=s), form="text", retries=1) as made:
            made.offer(incident())
            made.until(lambda made=made: made.counted("failed"))
        assert len(made.server.requests) == requests, status


def test_a_server_that_takes_schemas_and_ignores_them_is_found_out():
    with desk(lambda request: Said(GOOD if len(request["messages"]) > 1 else "hello")) as made:
        made.offer(incident())
        made.until(lambda: made.counted("model"))
    assert "response_format" not in made.server.about[0]
    assert "root_cause" in made.server.about[0]["messages"][0]["content"], "the schema, in words"


def test_offering_never_waits_and_stopping_does_not_wait_for_an_answer():
    with desk(keeps_schemas(lambda _: Said(GOOD, drip_s=60.0))) as made:
        begin = time.perf_counter()
        for number in range(500):
            made.offer(incident(f"{number:04x}", impact_ns=number))
        took = time.perf_counter() - begin
        made.until(lambda: len(made.server.about) == 2)
        begin = time.monotonic()
        made.enrichment.stop(10)
        stopped = time.monotonic() - begin
    assert took / 500 < 0.005, "includes making 500 incidents"
    assert stopped < 5
    counts = made.telemetry.explanations.outcomes()
    assert counts["queue_full"] + counts["stopped"] == 500
    assert counts["queue_full"] >= 500 - 64 - 2


def test_the_costliest_are_asked_about_first():
    first = threading.Event()
    order: list[str] = []

    def answer(request: dict[str, Any]) -> Said:
        first.wait(10)
        order.append(request["messages"][1]["content"].split("would be ")[1].split(" shorter")[0])
        return Said(WRONG)

    with desk(keeps_schemas(answer), concurrency=1) as made:
        made.offer(incident("0000", impact_ns=4_000_000))
        made.until(lambda: made.server.about)
        for name, cost in (("a", 1_000_000), ("b", 3_000_000), ("c", 2_000_000)):
            made.offer(incident(name, impact_ns=cost))
        first.set()
        made.until(lambda: made.counted("rejected") == 4)
    assert [name for name, _ in itertools.groupby(order)] == [
        "4.00 ms",
        "3.00 ms",
        "2.00 ms",
        "1.00 ms",
    ]


def test_a_dead_endpoint_is_left_alone_for_a_while_and_the_incidents_wait():
    up = threading.Event()

    def answer(request: dict[str, Any]) -> Said:
        return Said(GOOD) if up.is_set() else Said(status=500)

    with desk(keeps_schemas(answer), breaker_failures=2, breaker_pause=1.0, concurrency=1) as made:
        for number in range(4):
            made.offer(incident(f"{number}", impact_ns=10 - number))
        made.until(lambda: made.counted("failed") == 2)
        up.set()
        time.sleep(0.3)
        assert len(made.server.about) == 2, "the breaker is open"
        assert made.telemetry.gauges.read()["questions"] == 2
        made.until(lambda: made.counted("model") + made.counted("reused") == 2)


def test_over_the_hours_budget_nobody_is_asked():
    with desk(always(GOOD), tokens_per_hour=100) as made:
        made.offer(incident())
        made.until(lambda: made.counted("over_budget"))
    assert not made.server.requests


def test_an_incident_that_waited_too_long_is_not_asked_about():
    with desk(always(GOOD), max_wait=1e-9) as made:
        made.offer(incident())
        made.until(lambda: made.counted("waited_too_long"))
    assert not made.server.requests


def test_where_nothing_can_be_decided_nothing_is_sent():
    with desk(always(GOOD)) as made:
        made.offer(msgspec.structs.replace(incident(), evidence=[]))
        made.until(lambda: made.counted("nothing_to_ask"))
    assert not made.server.requests


def test_a_resolved_incident_is_not_asked_about():
    with desk(always(GOOD)) as made:
        made.offer(incident("gone", status="resolved"))
        made.offer(incident())
        made.until(lambda: made.counted("model"))
    assert [name for name, _ in made.shown] == ["1f0c"]


def test_a_defect_of_one_incident_does_not_end_the_asking(monkeypatch: pytest.MonkeyPatch):
    with desk(always(GOOD)) as made:
        broken = incident("broken")
        made.enrichment.offer("i", broken, None, SPAN)  # type: ignore[arg-type]
        made.until(lambda: made.counted("failed"))
        made.offer(incident())
        made.until(lambda: made.counted("model"))
    assert made.telemetry.books.marked("asking failed") == 1
