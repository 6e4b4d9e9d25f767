"""What the integration tests share: their servers, a sink, a Kafka broker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.kafka import Broker, broker_command
from tests.integration.servers import Servers
from tests.integration.sink import Sink


@pytest.fixture
def servers(tmp_path: Path, sinks: Callable[[], Sink]) -> Iterator[Servers]:
    """Processes of a test; ended whatever happens, and before the sinks that they send to."""
    del sinks
    servers = Servers(tmp_path)
    yield servers
    servers.stop()
    for server in servers.running:  # pytest shows this for failed tests only
        sys.stdout.write(f"--- {server.name}\n{server.said()[-8000:]}\n")


@pytest.fixture
def sinks() -> Iterator[Callable[[], Sink]]:
    """Opens backends in this process, one for each processor whose output is told apart."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Sink())


@pytest.fixture
def sink(sinks: Callable[[], Sink]) -> Sink:
    """A backend in this process that remembers every span id."""
    return sinks()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A Kafka broker for all tests; topics are created when first named, so take new names."""
    folder = tmp_path_factory.mktemp("kafka")
    servers = Servers(folder)
    command, endpoint = broker_command(folder / "broker")
    server = servers.start("kafka", command)
    try:
        servers.until("the Kafka broker", lambda: "Kafka Server started" in server.said())
        yield Broker(endpoint, folder / "broker" / "data")
    finally:
        servers.stop()
