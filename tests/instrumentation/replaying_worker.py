"""A worker process without a GPU: its steps are those of a recording, told by the stand-in CUPTI.

    python -m tests.instrumentation.replaying_worker FOLDER INTERVAL_NS BEGIN

Instrumented by the environment alone. FOLDER has ``RANK-STEP.npy`` with rows for the stand-in,
and ``names.json``. The file BEGIN tells, when it appears, at which Unix ns to begin; all workers
begin a step at the same time, as a group in lockstep does; step 0 is a warm-up without work. A
worker says ``ready`` and ``done``, and ends at SIGTERM, as a server does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

import kat_otel
from tests.instrumentation.standin import Standin

LEAD_NS = 100_000_000


def main() -> int:
    folder, interval, begin_file = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    rank = int(os.environ["RANK"])
    names = json.loads((folder / "names.json").read_text())
    steps = sorted(folder.glob(f"{rank}-*.npy"), key=lambda path: int(path.stem.partition("-")[2]))
    rows = [np.load(path) for path in steps]
    cupti = Standin()
    with kat_otel.step():  # what starts capture, as an engine's warm-up does
        pass
    print("ready", flush=True)  # noqa: T201
    while not begin_file.exists():
        time.sleep(0.01)
    begin = int(begin_file.read_text())
    for number, one in enumerate(rows):
        one["thread"] = threading.get_native_id()
        start = begin + number * interval
        time.sleep(max(0.0, (start - LEAD_NS - time.time_ns()) / 1e9))
        with kat_otel.step():  # begun before its work, however busy the machine is
            cupti.replay(one, names, start)
            cupti.wait()
    print("done", flush=True)  # noqa: T201
    signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
