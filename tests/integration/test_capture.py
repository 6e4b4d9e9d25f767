"""The whole way without a GPU: capture in eight processes -> collector -> kat process -> incident.

The stand-in CUPTI replays the kernels of a real trace (vLLM, gpt-oss, TP8 prefill on B200; one
rank recorded, cloned to eight with fitted noise: semi-synthetic) inside eight real worker
processes, instrumented by their environment. In one of them the kernels are slower from a step on.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kat_otel.lmdia.decode import workers
from kat_otel.lmdia.extract import extract
from kat_otel.lmdia.inject import slow_rank
from kat_otel.lmdia.recording import Group
from kat_otel.lmdia.semi import cloned
from kat_otel.lmdia.table import to_table
from kat_otel.readers import read
from tests.instrumentation.recorded import rows_of
from tests.instrumentation.standin import build
from tests.integration.servers import Servers

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RANKS = 8
STEPS = 24
SICK_FROM = 14
CULPRIT = 3
INTERVAL_NS = 250_000_000


@pytest.fixture(scope="module")
def recording(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the records of every rank and step."""
    folder = tmp_path_factory.mktemp("recording")
    real = read([traces / "vllm_gptoss_b200_tp8_rank0"]).table
    program = cloned(extract(real), workers(RANKS))
    sick = slow_rank(program, CULPRIT, 25).program
    group = Group(program, seed=5)
    names: list[str] = []
    for step in range(STEPS):
        noisy, times = group.play(step, sick if step >= SICK_FROM else None)
        for rank in range(RANKS):
            table = to_table(noisy, times, step=step, rows=[rank])
            rows, names = rows_of(table, 0)
            np.save(folder / f"{rank}-{step}.npy", rows)
    (folder / "names.json").write_text(json.dumps(names))
    return folder


def start_workers(
    servers: Servers, recording: Path, endpoint: str, **environment: str
) -> list[Any]:
    begin = time.time_ns() + 6_000_000_000
    command = [sys.executable, "-m", "tests.instrumentation.replaying_worker"]
    command += [str(recording), str(begin), str(INTERVAL_NS)]
    group = {
        "KAT_OTEL": "on",
        "KAT_CUPTI_LIBRARY": str(build()),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}",
        "OTEL_SERVICE_NAME": "gpt-oss",
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "run-1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **environment,
    }
    started = []
    for rank in range(RANKS):
        worker = servers.start(
            f"worker-{rank}", command, **group, RANK=str(rank), LOCAL_RANK=str(rank)
        )
        worker.may_end = True
        started.append(worker)
    return started
