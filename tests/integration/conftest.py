"""What the integration tests share: their servers, a sink, a Kafka broker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.kafka import Broker, broker_command
from tests.integration.servers import Servers
from tests.integration.sink import Sink


@pytest.fixture
def servers(tmp_path: Path, sink: Sink) -> Iterator[Servers]:
    """Processes of a test; ended whatever happens, and before the sink that they send to."""
    servers = Servers(tmp_path)
    yield servers
    servers.stop()
    for server in servers.running:  # pytest shows this for failed tests only
        sys.stdout.write(f"--- {server.name}\n{server.said()[-8000:]}\n")


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A backend in this process that remembers every span id."""
    with Sink() as sink:
        yield sink


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
