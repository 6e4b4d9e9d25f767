"""A worker process without a GPU: its steps are those of a recording, told by the stand-in CUPTI.

    python -m tests.instrumentation.replaying_worker FOLDER BEGIN_UNIX_NS INTERVAL_NS

Instrumented by the environment alone. FOLDER has ``RANK-STEP.npy`` with rows for the stand-in,
and ``names.json``; all workers begin a step at the same time, as a group in lockstep does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

import kat_otel
from tests.instrumentation.standin import Standin


def main() -> int:
    folder, begin, interval = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rank = int(os.environ["RANK"])
    names = json.loads((folder / "names.json").read_text())
    steps = sorted(folder.glob(f"{rank}-*.npy"), key=lambda path: int(path.stem.partition("-")[2]))
    rows = [np.load(path) for path in steps]
    cupti = Standin()
    for number, one in enumerate(rows):
        one["thread"] = threading.get_native_id()
        start = begin + number * interval
        time.sleep(max(0.0, (start - time.time_ns()) / 1e9))
        with kat_otel.step():
            cupti.replay(one, names, start)
            cupti.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
