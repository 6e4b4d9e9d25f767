"""Kafka between collector and ``kat process``: order, no loss, and no wait that cannot end."""

from __future__ import annotations

import pytest

from tests.integration.servers import WHOLE
from tests.integration.sink import shown
from tests.integration.traffic import Instance, Sender, span_ids

pytestmark = [pytest.mark.integration, pytest.mark.slow]


class Tier:
    """Producer and consumers around the broker, with topics of this test's own."""

    def __init__(self, servers, broker, name):
        self.servers, self.broker = servers, broker
        self.topics = {
            f"KAT_KAFKA_{signal.upper()}": f"{name}-{signal}"
            for signal in ("traces", "metrics", "logs")
        }
        self.traces = f"{name}-traces"
        self.name = name

    def producer(self):
        endpoint = self.servers.endpoint()
        self.servers.collector(
            "producer",
            "kafka-producer.yaml",
            KAT_COLLECTOR_GRPC_ENDPOINT=endpoint,
            KAT_COLLECTOR_HTTP_ENDPOINT=self.servers.endpoint(),
            **self._common(),
        )
        return endpoint

    def consumer(self, kat):
        return self.servers.collector(
            f"consumer-{kat.name}",
            "kafka-consumer.yaml",
            KAT_PROCESS_ENDPOINT=kat.endpoint,
            KAT_KAFKA_GROUP=self.name,
            KAT_KAFKA_MEMBER=kat.name,
            KAT_KAFKA_SESSION_TIMEOUT="3s",
            KAT_KAFKA_HEARTBEAT="500ms",
            **self._common(),
        )

    def _common(self):
        return {"KAT_KAFKA_BROKERS": f'["{self.broker.endpoint}"]', **self.topics}


@pytest.fixture
def tier(servers, broker, request):
    return Tier(servers, broker, request.node.name.replace("_", "-")[:60])


@pytest.mark.timeout(240)
def test_a_fault_is_named_and_nothing_is_lost_on_the_way(servers, tier, sink):
    kat = servers.kat("kat", sink.endpoint)
    tier.consumer(kat)
    instance = Instance("steady")
    requests = instance.steps(range(40)) + instance.steps(range(40, 60), faulty=True)
    with Sender(tier.producer()) as sender:
        sender.send(requests)
    sent = len(span_ids(requests))

    books = servers.until("all in the books", lambda: _done(kat, sent))
    assert books.taken == sent + books.repeated
    assert books.lost == 0
    assert books.unexplained == 0
    assert books.events.get("steps complete") == 60, books.events
    (incident,) = sink.faults("steady")
    assert incident["culprit"]["ranks"] == [instance.culprit]
    assert len(tier.broker.partitions(tier.traces)) == 1, "an instance lies in one partition"


@pytest.mark.timeout(240)
def test_ranks_behind_each_other_in_a_partition_cannot_wait_for_each_other(servers, tier, sink):
    # All ranks of an instance share a partition, whose next record is only read when the last
    # was acknowledged. Whoever acknowledged a rank's spans when the step is whole would never
    # see the next rank's. Nothing may need the deadline: it is later than this test.
    patient = {"assembler": {"decision_wait": "10m"}}
    kat = servers.kat("kat", sink.endpoint, **patient, **WHOLE)
    tier.consumer(kat)
    instance = Instance("queued", ranks=8)
    requests = instance.steps(range(10))
    rank_by_rank = sorted(requests, key=lambda request: (request.rank, request.step))
    with Sender(tier.producer()) as sender:
        sender.send(rank_by_rank, at_once=1)  # one in flight: this order is the partition's
    servers.until("every span at the backend", lambda: not sink.missing(span_ids(requests)))
    assert kat.books().events.get("steps complete") == 10


@pytest.mark.timeout(300)
def test_a_processor_joins_and_one_is_killed_and_nothing_is_lost(servers, tier, sink):
    state = {"state": {"directory": str(servers.folder / "state"), "interval": "200ms"}}
    instances = [Instance(f"model-{n}", seed=n + 1) for n in range(6)]
    first = servers.kat("first", sink.endpoint, **state, **WHOLE)
    tier.consumer(first)
    endpoint = tier.producer()
    with Sender(endpoint) as sender:
        requests = [r for instance in instances for r in instance.steps(range(30))]
        sender.send(requests)
        servers.until("the first steps", lambda: not sink.missing(span_ids(requests)))
        assert len(tier.broker.partitions(tier.traces)) > 1, "the instances are spread"

        second = servers.kat("second", sink.endpoint, **state, **WHOLE)
        consumer = tier.consumer(second)
        for number in range(30, 130):
            requests += (new := [r for i in instances for r in i.steps([number], faulty=True)])
            sender.send(new)
            if number == 80:
                servers.until("the second's share", lambda: second.books().taken > 0)
                second.kill()
                consumer.kill()
        servers.until("every span", lambda: not _missing_but_logged(sink, requests), within=90)
        # What the killed one had acknowledged lies in its log, and leaves when it is back.
        servers.restart(second)
        servers.until("every span", lambda: not sink.missing(span_ids(requests)), within=90)

    books = [servers.until("books", lambda k=kat: _closed(k)) for kat in (first, second)]
    assert sum(book.lost for book in books) == 0, [str(book) for book in books]
    assert all(book.unexplained == 0 for book in books), [str(book) for book in books]
    for instance in instances:
        found = sink.faults(instance.name)
        assert len(found) == 1, f"{instance.name}: one cause is one incident, not {shown(found)}"
        (incident,) = found
        assert incident["culprit"]["ranks"] == [instance.culprit]


def _missing_but_logged(sink, requests):
    """Spans that have not come of the steps that were sent when the second was gone.

    It may have acknowledged any earlier one: how far it was depends on the machine.
    """
    return sink.missing(span_ids([r for r in requests if r.step > 80]))


def _done(kat, spans):
    books = kat.books()
    return books if books.taken - books.repeated >= spans and books.pending == 0 else None


def _closed(kat):
    books = kat.books()
    return books if books.pending == 0 else None
