"""A C++ server from its NVTX ranges to the collector: no Python but the helper's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kat_otel import semconv
from kat_otel.instrumentation.capture.library import PATH
from kat_otel.spans import SpanKind, SpanTable, concat
from tests.instrumentation import needs, standin
from tests.instrumentation.capturing import rows
from tests.instrumentation.simulated import Collector

needs.compiler()

HERE = Path(__file__).parent
STEPS, KERNELS, APART_NS = 6, 8, 20_000_000
_BEGIN, _END = 2, 4  # CUPTI_ACTIVITY_FLAG_MARKER_*
NAMES = ["gemm", "cudaLaunchKernel", *(f"step {number}" for number in range(STEPS))]
RANKS = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("driver") / "server"
    command = ["cc", "-Wall", "-Werror", str(HERE / "driver.c"), "-o", str(program), "-ldl"]
    subprocess.run(command, check=True)
    return program


def work() -> NDArray:
    """Steps of 10 ms, 20 ms apart, each a range with launches in it."""
    step = np.repeat(np.arange(STEPS), KERNELS)
    begin = (1 + np.arange(STEPS)) * APART_NS
    launch = begin[step] + np.tile(np.arange(1, KERNELS + 1), STEPS) * 1_000_000
    correlation = 1 + np.arange(len(step))
    own = {"correlation": correlation, "start": launch, "end": launch + 5_000}
    calls = rows("runtime", len(step), name=1, thread=7, **own)
    own |= {"start": launch + 10_000, "end": launch + 400_000}
    kernels = rows("kernel", len(step), name=0, stream=7, **own)
    ids = 1 + np.arange(STEPS)
    begins = rows("marker", STEPS, name=2 + np.arange(STEPS), thread=7, id=ids, extra=_BEGIN)
    ends = rows("marker", STEPS, thread=7, id=ids, extra=_END)
    begins["start"] = begins["end"] = begin
    ends["start"] = ends["end"] = begin + 10_000_000
    every = np.concatenate([calls, kernels, begins, ends])
    every["at"] = every["end"]
    return every


@contextmanager
def serving(server: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("KAT_")}
    env |= {"CUDA_INJECTION64_PATH": str(PATH), "KAT_CUPTI_LIBRARY": str(standin.build())}
    env |= {"KAT_HELPER_PYTHON": sys.executable, "KAT_HARDWARE_INTERVAL": "0"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([server], env=env | environment, text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def spans(collector: Collector) -> SpanTable:
    requests = [r for r in collector.requests if r.path == "/v1/traces"]
    return concat([SpanTable.empty(), *(r.table for r in requests)])


def roots(table: SpanTable) -> set[tuple[int, int]]:
    """Rank and step of each worker step that came."""
    rank = [table.resources[i].rank for i in table.resource.tolist()]
    every = zip(rank, table.step.tolist(), table.kind == SpanKind.WORKER_STEP, strict=True)
    return {(rank, step) for rank, step, top in every if top}


@pytest.mark.parametrize("every", [1, 0], ids=["whole", "digests"])
def test_ranks_of_an_mpi_job_send_the_steps_that_their_ranges_name(
    server: Path, tmp_path: Path, collector: Collector, every: int
) -> None:
    standin.write(tmp_path / "rows", work(), NAMES)
    common = {
        "STANDIN_CUPTI_REPLAY": str(tmp_path / "rows"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OMPI_COMM_WORLD_SIZE": str(RANKS),
        "OMPI_MCA_ess_base_jobid": "8123",
        "KAT_STEP_RANGE": r"step (\d+)",
        "KAT_SAMPLE_EVERY": str(every),
        "KAT_OVERHEAD_BUDGET": "0",
    }
    first = serving(server, OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_LOCAL_RANK="0", **common)
    other = serving(server, OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_LOCAL_RANK="1", **common)
    expected = {(rank, step) for rank in range(RANKS) for step in range(STEPS)}
    with first as one, other as two:
        # The last range is a step when the next one has begun, or the server has ended.
        seen = {pair for pair in expected if pair[1] < STEPS - 1}
        collector.wait_for(lambda _: seen <= roots(spans(collector)), 30)
        said = [process.communicate("end\n", 30) for process in (one, two)]
        collector.wait_for(lambda _: expected <= roots(spans(collector)), 30)
    assert [text for text, _ in said] == ["served\n"] * RANKS
    assert {one.returncode, two.returncode} == {0}
    table = spans(collector)
    assert roots(table) == expected
    first_step = table.take(np.flatnonzero(table.step == 0))
    assert len(set(first_step.trace_lo.tolist())) == 1  # both ranks' spans meet in one trace
    assert {r.world_size for r in table.resources} == {RANKS}
    assert {r.attributes["process.pid"] for r in table.resources} == {one.pid, two.pid}
    assert {r.attributes[semconv.ENGINE] for r in table.resources} == {"native"}
    kernels = int(np.count_nonzero(table.kind == SpanKind.KERNEL))
    assert kernels == (RANKS * STEPS * KERNELS if every else 0)
    if not every:
        assert all(semconv.DIGEST in one for one in table.attributes.values())
