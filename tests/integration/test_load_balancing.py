"""Two, three, then two ``kat process`` behind the collector's own load_balancing exporter."""

from __future__ import annotations

import signal

import pytest
import yaml

from tests.integration.servers import WHOLE
from tests.integration.sink import shown
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


def steps(fleet, numbers, *, faulty=False):
    return [r for number in numbers for i in fleet for r in i.steps([number], faulty=faulty)]


@pytest.mark.timeout(240)
def test_all_of_an_instance_reaches_one_processor(servers, sink):
    kats = [servers.kat(name, sink.endpoint, **WHOLE) for name in ("first", "second")]
    balancer = Balancer(servers, kats)
    fleet = instances(8)
    requests = steps(fleet, range(5))
    with Sender(balancer.endpoint) as sender:
        sender.send(requests)
    servers.until("every span", lambda: not sink.missing(span_ids(requests)))
    books = [kat.books() for kat in kats]
    assert all(book.taken > 0 for book in books), "the instances are spread"
    # Were a step divided, both halves would wait for the rest and end as incomplete.
    assert sum(book.events.get("steps complete", 0) for book in books) == 8 * 5
    assert [book.unexplained + book.pending + book.lost for book in books] == [0, 0]


@pytest.mark.timeout(360)
def test_a_processor_is_added_and_one_killed_while_a_fault_lasts(servers, sink):
    state = {"state": {"directory": str(servers.folder / "state"), "interval": "200ms"}}
    settings = state | WHOLE
    first, second = (servers.kat(name, sink.endpoint, **settings) for name in ("first", "second"))
    balancer = Balancer(servers, [first, second])
    fleet = instances(4)
    with Sender(balancer.endpoint) as sender:
        sender.send(requests := steps(fleet, range(30)))
        third = servers.kat("third", sink.endpoint, **settings)
        for number in range(30, 130):
            requests += (new := steps(fleet, [number], faulty=True))
            sender.send(new)
            if number == 50:
                balancer.now_to([first, second, third])
            if number == 90:
                second.kill()
                balancer.now_to([first, third])
        servers.restart(second)  # what it had acknowledged lies in its log
        servers.until("every span", lambda: not sink.missing(span_ids(requests)), within=120)

    for kat in (first, second, third):
        servers.until(f"{kat.name}'s books", lambda kat=kat: kat.books().pending == 0)
        books = kat.books()
        assert (books.unexplained, books.lost) == (0, 0), f"{kat.name}: {books}"
    for instance in fleet:
        found = sink.faults(instance.name)
        assert len(found) == 1, f"{instance.name}: one cause is one incident, not {shown(found)}"
        (incident,) = found
        assert incident["culprit"]["ranks"] == [instance.culprit]
