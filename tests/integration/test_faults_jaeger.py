"""A fault on the way to a real Jaeger, with the settings that a fleet has: healthy steps are summarised.

sender -> gateway.yaml (queue on disk) -> kat process (log on disk) -> the same collector -> Jaeger

What is in Jaeger is held against what was sent, step by step, and against the books of both lives
of the processor, which count for themselves.
"""

from __future__ import annotations

import signal
import threading

import pytest

from kat_otel import semconv
from tests.integration.jaeger import Jaeger, attributes_of
from tests.integration.traffic import Instance, Sender, span_ids

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

INSTANCE = Instance("summarised")
HEALTHY, STEPS = 60, 160
"""So many steps, of which the fault is in those from HEALTHY on."""


def test_a_processor_killed_under_load_while_jaeger_is_away_explains_every_span(servers):
    jaeger = Jaeger.start(servers)
    endpoint, back = servers.endpoint(), servers.endpoint()
    kat = servers.kat("kat", back)
    gateway = servers.collector(
        "gateway",
        "gateway.yaml",
        KAT_COLLECTOR_GRPC_ENDPOINT=endpoint,
        KAT_COLLECTOR_HTTP_ENDPOINT=servers.endpoint(),
        KAT_PROCESS_ENDPOINT=kat.endpoint,
        KAT_RETURN_ENDPOINT=back,
        KAT_JAEGER_ENDPOINT=jaeger.endpoint,
        KAT_PROMETHEUS_ENDPOINT=servers.endpoint(),
    )
    healthy = INSTANCE.steps(range(HEALTHY))
    faulty = INSTANCE.steps(range(HEALTHY, STEPS), faulty=True)
    sent = span_ids(healthy + faulty)
    with Sender(endpoint, patience=120) as sender:
        sender.send(healthy)
        jaeger.goes_away()
        sending = threading.Thread(target=sender.send, args=(faulty,), kwargs={"pause": 0.02})
        sending.start()
        first = servers.until(
            "a life that ends at work", lambda: _read_and_kill(servers, kat, gateway)
        )
        servers.restart(kat)
        sending.join()
        assert sender.refused_for_good(b"\xff" * 100, INSTANCE.name) is not None
    servers.until("the processor", lambda: kat.books().healthy)
    jaeger.comes_back()
    assert sender.acknowledged == sent
    # All of them were taken, and have met their fate; the last traces may be on their way yet.
    second = servers.until("the books", lambda: _closed(kat, first, sent), within=120)
    explained = servers.until("every trace", lambda: _explained(jaeger), within=120)

    assert (first.lost, second.lost) == (0, 0), f"{first}\n{second}"
    assert first.total("invalid") + second.total("invalid") == 0, "rejected by the collector alone"
    # Of a step that is not in Jaeger all spans are in the metrics only; of one that is, the root
    # says how many are.
    at_jaeger = sum(len(there) for there, _ in explained.values())
    not_there = len(sent) - at_jaeger
    summarised = first.total("summarised") + second.total("summarised")
    # What the first life had given a fate that was not yet on its disk, the second gives another.
    taken_twice = first.taken + second.taken - first.pending - len(sent)
    assert 0 <= summarised - not_there <= taken_twice, f"{first}\n{second}"
    assert first.total("forwarded") + second.total("forwarded") >= at_jaeger
