"""Kafka between collector and ``kat process``: order, no loss, and no wait that cannot end."""

from __future__ import annotations

import pytest

from tests.integration.routing import facts_at, facts_of, meet, one_incident
from tests.integration.servers import WHOLE
from tests.integration.sink import missing_everywhere
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


def shared(servers, sender, fleet, backends):
    """Sends steps, metrics and lines until each instance's go one way, and both have some.

    The topics come into being with their first record, and then the consumers share them.

    Returns:
        The number of the next step.
    """
    for number in range(60):
        said = [r for i in fleet for r in [*i.readings("healthy", number)[:1], i.line(number, "-")]]
        sender.send([r for i in fleet for r in i.steps([number])] + said)
        facts = facts_of(said)
        servers.until("the readings", lambda f=facts: not f - facts_at(backends))
        servers.until(
            "the step", lambda n=number: all(one_way(backends, i, n, set()) for i in fleet)
        )
        ways = [one_way(backends, i, number, facts) for i in fleet]
        if all(len(way) == 1 for way in ways) and len(set().union(*ways)) == len(backends):
            return number + 1
    raise AssertionError(f"the partitions are not shared: {ways}")


def one_way(backends, instance, number, facts):
    """Which of the backends have something of an instance's step, or of what was said with it."""
    mine = {fact for fact in facts if fact.instance == instance.name}
    return {
        at
        for at, backend in enumerate(backends)
        if (instance.name, f"step {number}") in backend.roots or mine & backend.facts
    }


@pytest.mark.timeout(240)
def test_all_signals_of_an_instance_reach_one_processor(servers, tier, sinks):
    backends = [sinks(), sinks()]
    kats = [
        servers.kat(name, backend.endpoint, **WHOLE)
        for name, backend in zip(("first", "second"), backends, strict=True)
    ]
    for kat in kats:
        tier.consumer(kat)
    fleet = [Instance(f"model-{n}", seed=n + 1) for n in range(4)]
    with Sender(tier.producer()) as sender:
        number = shared(servers, sender, fleet, backends)
        meet(servers, sender, backends, fleet, at=number)
    books = [servers.until("books", lambda k=kat: _closed(k)) for kat in kats]
    assert [book.unexplained + book.lost for book in books] == [0, 0]


@pytest.mark.timeout(300)
def test_a_processor_joins_and_one_is_killed_and_nothing_is_lost(servers, tier, sinks):
    # Every step tells its incident, so that each processor's backend shows where it took it up.
    told = {"logs": {"ongoing_interval": "0s"}}
    state = {"state": {"directory": str(servers.folder / "state"), "interval": "200ms"}}
    backends = here, there = sinks(), sinks()
    instances = [Instance(f"model-{n}", seed=n + 1) for n in range(6)]
    first = servers.kat("first", here.endpoint, **state, **told, **WHOLE)
    tier.consumer(first)

    def missing(sent):
        return missing_everywhere(backends, span_ids(sent))

    with Sender(tier.producer()) as sender:
        requests = [r for instance in instances for r in instance.steps(range(30))]
        sender.send(requests)
        servers.until("the first steps", lambda: not missing(requests))
        assert len(tier.broker.partitions(tier.traces)) > 1, "the instances are spread"

        second = servers.kat("second", there.endpoint, **state, **told, **WHOLE)
        consumer = tier.consumer(second)
        for number in range(30, 130):
            requests += (new := [r for i in instances for r in i.steps([number], faulty=True)])
            sender.send(new)
            if number == 60:
                servers.until("the second's share", there.instances)
                there.down()  # so that it dies with something in its log
            if number == 80:
                servers.until("something to die with", lambda: second.books().pending > 0)
                restored = second.books().events.get("states restored", 0)
                second.kill()
                consumer.kill()
        there.up()
        # It may have acknowledged any earlier one: how far it was depends on the machine.
        afterwards = [request for request in requests if request.step > 80]
        servers.until("every later span", lambda: not missing(afterwards), within=90)
        # What the killed one had acknowledged lies in its log, and leaves when it is back.
        servers.restart(second)
        servers.until("every span", lambda: not missing(requests), within=90)

    books = [servers.until("books", lambda k=kat: _closed(k)) for kat in (first, second)]
    assert sum(book.lost for book in books) == 0, [str(book) for book in books]
    assert all(book.unexplained == 0 for book in books), [str(book) for book in books]
    assert books[1].total("recovered") > 0, "it died with nothing in its log"
    # The histories went there with their instances, and came back.
    assert restored >= len(there.instances()) > 0
    assert books[0].events.get("states restored", 0) >= restored
    for instance in instances:
        one_incident(instance, backends)


def _done(kat, spans):
    books = kat.books()
    return books if books.taken - books.repeated >= spans and books.pending == 0 else None


def _closed(kat):
    books = kat.books()
    return books if books.pending == 0 else None
