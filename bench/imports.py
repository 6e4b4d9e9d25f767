"""What KAT-OTel adds to the start of an inference server: time, modules and memory of its imports.

Each line is the median of fresh interpreters: the ``.pth`` file where nobody asked and where
KAT_OTEL=on asks, the hooks as they are put on an engine, and hooks with all that the first step
brings. A server has NumPy anyway: hooks and steps are measured where it was imported before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time

REPEATS = 15
START = "__import__('kat_otel.instrumentation.start', fromlist=['run']).run()"
PTH = f"import os; os.environ.get('KAT_OTEL') and {START}"
HOOKS = "import kat_otel.instrumentation.instrumentor"
OURS = "kat_otel.instrumentation"
STEP = f"{HOOKS}, {OURS}.capture.cupti, {OURS}.sending.helping"
THREAD = f"{STEP}, {OURS}.capture.region, {OURS}.sending.wiring"
CASES = (
    ("the .pth file, nobody asked", "", PTH, ""),
    ("the .pth file, KAT_OTEL=on", "", PTH, "on"),
    ("NumPy, for comparison", "", "import numpy", ""),
    ("hooks on an engine", "import numpy", HOOKS, "on"),
    ("the first step", "import numpy", STEP, "on"),
    ("the first step, KAT_SENDER=thread", "import numpy", THREAD, "on"),
    ("the helper process", "", f"import {OURS}.sending.helper", "on"),
)
REPORT = (
    "import json, resource, sys, time; begin = time.perf_counter(); before = len(sys.modules);"
    "size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; exec(sys.argv[2]);"
    "print(json.dumps([time.perf_counter() - begin, len(sys.modules) - before,"
    "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size]))"
)


def measured(first: str, code: str, asked: str) -> tuple[float, int, float]:
    """Milliseconds, modules and MiB of ``code``, where ``first`` was run before it."""
    environment = {key: value for key, value in os.environ.items() if key != "KAT_OTEL"}
    if asked:
        environment["KAT_OTEL"] = asked
    command = [
        sys.executable,
        "-S",
        "-c",
        f"import sys; sys.path[:0] = {PATHS!r}; exec(sys.argv[1]); {REPORT}",
    ]
    runs = [
        json.loads(
            subprocess.run(
                [*command, first, code], capture_output=True, check=True, env=environment
            ).stdout
        )
        for _ in range(REPEATS)
    ]
    seconds, modules, kib = (statistics.median(column) for column in zip(*runs, strict=True))
    return seconds * 1e3, int(modules), kib / 1024


PATHS = [path for path in sys.path if path]


def main() -> None:
    begin = time.perf_counter()
    print(f"{'':34}{'ms':>8}{'modules':>10}{'MiB':>8}")
    for name, first, code, asked in CASES:
        milliseconds, modules, mib = measured(first, code, asked)
        print(f"{name:34}{milliseconds:8.1f}{modules:10}{mib:8.1f}")
    print(f"median of {REPEATS} interpreters each, {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
