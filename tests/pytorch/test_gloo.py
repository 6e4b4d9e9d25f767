"""A real distributed program on CPUs: two ranks over gloo, instrumented by nothing but variables.

One of them is slowed by the operating system alone (its core is shared with busy processes); it
is the one that is named. Needs an environment with PyTorch: ``make test-torch``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import servers, sink, sinks  # noqa: F401 - fixtures
from tests.integration.servers import Servers, free_ports
from tests.integration.sink import Sink
from tests.integration.test_capture import collected, reports

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.torch]

PROGRAM = Path(__file__).with_name("tensor_parallel.py")
SLOWED = 1


@pytest.fixture
def torch_python() -> str:
    """An interpreter with PyTorch and this checkout."""
    python = os.environ.get("KAT_TORCH_PYTHON")
    if not python:
        pytest.skip("no environment with PyTorch: make test-torch")
    return python


@contextmanager
def busy(core: int, processes: int) -> Iterator[None]:
    """Processes that want a core all the time, as a neighbour on the host would."""
    spin = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    started = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.timeout(280)
def test_the_rank_whose_core_is_shared_is_named(
    torch_python: str,
    servers: Servers,  # noqa: F811
    sink: Sink,  # noqa: F811
) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core cannot be shared by one rank alone: run it on two cores or more")
    # Judge and collector give way to the ranks, which share two cores with them.
    kat, endpoint = collected(servers, sink, before=["nice", "-n", "19"])
    group = {
        "KAT_OTEL": "on",
        "KAT_CAPTURE": "torch",
        "KAT_SAMPLE_EVERY": "0",  # digests alone: of two ranks, the own history tells which
        "KAT_OVERHEAD_BUDGET": "0",  # torch.profiler costs more than one percent
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_ports(1)[0]),
        "TORCHELASTIC_RUN_ID": "gloo",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    for rank in range(2):
        command = ["taskset", "-c", str(cores[rank]), torch_python, str(PROGRAM), "100000"]
        worker = servers.start(
            f"worker-{rank}", command, **group, RANK=str(rank), LOCAL_RANK=str(rank)
        )
        worker.may_end = True
    first = servers.running[-2]
    servers.until("healthy steps", lambda: "step 199" in first.said().splitlines(), within=120)
    begun = time.time_ns() - 1_000_000_000  # the step that runs now has begun before
    with busy(cores[SLOWED], 2):
        servers.until(
            "the slow rank", lambda: named(servers, begun).get(SLOWED, 0) >= 3, within=150
        )
        blamed = named(servers, begun)
    # Judge and collector may disturb the other rank for a moment: never as long.
    assert all(steps < 3 for rank, steps in blamed.items() if rank != SLOWED), reports(servers)
    assert kat.books().lost == 0


def named(servers: Servers, since_ns: int) -> dict[int, int]:  # noqa: F811
    """In how many steps each rank was named, by the incidents that began since."""
    found: dict[int, int] = {}
    for one in reports(servers):
        if one["first_seen"] >= since_ns:
            for rank in one["culprit"]["ranks"]:
                found[rank] = max(found.get(rank, 0), one["occurrences"])
    return found
