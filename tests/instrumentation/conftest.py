from __future__ import annotations

from collections.abc import Iterator

import pytest

from kat_otel.instrumentation.counts import Counts
from kat_otel.lmdia.recording import Group
from tests.instrumentation.simulated import Collector, program_of


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture(scope="session")
def pair() -> Group:
    """Two ranks of a small model."""
    return Group(program_of(2), 600)
