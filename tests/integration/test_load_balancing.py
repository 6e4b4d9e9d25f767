"""Two, three, then two ``kat process`` behind the collector's own load_balancing exporter."""

from __future__ import annotations

import signal
from dataclasses import dataclass

import pytest
import yaml

from tests.integration.routing import meet, one_incident
from tests.integration.servers import WHOLE, Kat
from tests.integration.sink import Sink, missing_everywhere
from tests.integration.traffic import Instance, Sender, span_ids

pytestmark = [pytest.mark.integration, pytest.mark.slow]


class Balancer:
    """The tier, with a list of processors that can change while it runs."""

    def __init__(self, servers, kats):
        self.endpoint = servers.endpoint()
        self._file = servers.folder / "processors.yaml"
        self._write(kats)
        self._server = servers.collector(
            "balancer",
            ["load-balancing.yaml", self._file],
            KAT_COLLECTOR_GRPC_ENDPOINT=self.endpoint,
            KAT_COLLECTOR_HTTP_ENDPOINT=servers.endpoint(),
        )
        self._servers = servers

    def _write(self, kats):
        names = {"static": {"hostnames": [kat.endpoint for kat in kats]}}
        self._file.write_text(
            yaml.safe_dump({"exporters": {"load_balancing": {"resolver": names}}})
        )

    def now_to(self, kats):
        """Changes the list, as a deployment would, and waits until the collector is back."""
        self._write(kats)
        reloads = self._server.said().count("Config updated, restart service")
        self._server.signal(signal.SIGHUP)
        said = self._server.said
        self._servers.until(
            "the reload", lambda: said().count("Config updated, restart service") > reloads
        )
        self._servers.until("its health", lambda: self._servers.collector_is_up(self._server))


def instances(count):
    return [Instance(f"model-{number}", seed=number + 1) for number in range(count)]


def spread(servers, sender, backends):
    """As many instances as it takes for each processor to have one, after their step 0.

    Where the hash puts an instance depends on the processors' ports, which are others each time.
    """
    for count in range(4, 40):
        fleet = instances(count)
        sender.send(steps(fleet if count == 4 else fleet[-1:], [0]))
        there = servers.until("their steps", lambda fleet=fleet: having(backends, fleet))
        if all(there):
            return fleet
    raise AssertionError("no instance reaches one of the processors")


def having(backends, fleet):
    """The instances that each processor has judged; None before all were judged."""
    names = {instance.name for instance in fleet}
    there = [names & backend.instances() for backend in backends]
    return there if set().union(*there) == names else None


def closed(kat):
    books = kat.books()
    return books if books.pending == 0 else None


def steps(fleet, numbers, *, faulty=False):
    return [r for number in numbers for i in fleet for r in i.steps([number], faulty=faulty)]


@pytest.mark.timeout(240)
def test_all_signals_of_an_instance_reach_one_processor(servers, sinks):
    backends = [sinks(), sinks()]
    kats = [
        servers.kat(name, backend.endpoint, **WHOLE)
        for name, backend in zip(("first", "second"), backends, strict=True)
    ]
    balancer = Balancer(servers, kats)
    with Sender(balancer.endpoint) as sender:
        fleet = spread(servers, sender, backends)
        sender.send(requests := steps(fleet, range(1, 5)))
        servers.until("every span", lambda: not missing_everywhere(backends, span_ids(requests)))
        meet(servers, sender, backends, fleet, at=5)
    books = [servers.until("the books", lambda k=kat: closed(k)) for kat in kats]
    # Were a step divided, both halves would wait for the rest and end as incomplete.
    assert sum(book.events.get("steps complete", 0) for book in books) == len(fleet) * 10
    assert [book.unexplained + book.lost for book in books] == [0, 0]


@dataclass(frozen=True)
class Processor:
    """A processor and its own backend, which tells what went through it."""

    kat: Kat
    sink: Sink

    def had(self, instance, step):
        return (instance.name, f"step {step}") in self.sink.roots


@pytest.mark.timeout(360)
def test_a_processor_is_added_and_one_killed_while_a_fault_lasts(servers, sinks):
    # Every step tells its incident, so that each processor's backend shows where it took it up.
    told = {"logs": {"ongoing_interval": "0s"}}
    state = {"state": {"directory": str(servers.folder / "state"), "interval": "200ms"}}

    def start(name):
        sink = sinks()
        return Processor(servers.kat(name, sink.endpoint, **state, **told, **WHOLE), sink)

    first, second = everybody = [start("first"), start("second")]

    def missing(requests):
        return missing_everywhere([p.sink for p in everybody], span_ids(requests))

    balancer = Balancer(servers, [first.kat, second.kat])
    with Sender(balancer.endpoint) as sender:
        fleet = spread(servers, sender, [first.sink, second.sink])
        sent = steps(fleet, [0])

        def go_on(numbers, *, faulty=True):
            nonlocal sent
            for number in numbers:
                sent += (new := steps(fleet, [number], faulty=faulty))
                sender.send(new)

        go_on(range(1, 30), faulty=False)
        go_on(range(30, 50))
        # What still stands in the tier's queue would move to the new one before the old one has
        # judged what came earlier: docs/scaling.md says what is told then.
        servers.until("what was sent", lambda: not missing(sent))
        for at in range(50, 70):
            everybody.append(third := start(f"added-{at}"))
            balancer.now_to([first.kat, second.kat, third.kat])
            go_on([at])
            servers.until("the step", lambda: not missing(sent[-4 * len(fleet) :]))
            added = [instance for instance in fleet if third.had(instance, at)]
            if 0 < len(added) < len(fleet):
                break
            third.kat.stop()  # one that gets no instance, or all of them, proves nothing
        go_on(range(at + 1, 80))
        gone, stays = (first, second) if any(first.had(i, at) for i in fleet) else (second, first)
        left = [instance for instance in fleet if gone.had(instance, at)]
        gone.sink.down()  # so that it dies with something in its log
        go_on(range(80, 90))
        servers.until("something to die with", lambda: gone.kat.books().pending > 0)
        gone.kat.kill()
        balancer.now_to([stays.kat, third.kat])
        go_on(range(90, 130))
        servers.until("what was sent since", lambda: not missing(sent[4 * 90 * len(fleet) :]))
        restored = [p.kat.books().events.get("states restored", 0) for p in (third, stays)]
        gone.sink.up()
        servers.restart(gone.kat)
        servers.until("every span", lambda: not missing(sent), within=60)
        go_on(range(130, 135))
        servers.until("the last steps", lambda: not missing(sent))

    books = {
        p.kat.name: servers.until("books", lambda p=p: closed(p.kat)) for p in (gone, stays, third)
    }
    for name, book in books.items():
        assert (book.unexplained, book.lost) == (0, 0), f"{name}: {book}"
    assert books[gone.kat.name].total("recovered") > 0, "it died with nothing in its log"
    # The histories went with their instances, and the old steps of the one that came back have
    # taken none away again.
    assert restored[0] >= len(added), restored
    assert sum(restored) >= len(added) + len(left), restored
    now = [books[p.kat.name].events.get("states restored", 0) for p in (third, stays)]
    assert now == restored
    for instance in fleet:
        one_incident(instance, [p.sink for p in everybody])
