"""Everything that only an NVIDIA GPU can show, in one run of under nine minutes.

    python bench/gpu                    all checks, a table at the end, JSON with --json FILE
    python bench/gpu --only graphs      one check
    python bench/gpu --rehearse         the same code against a stand-in libcupti, no GPU

Every check runs in a process of its own with a time limit: one that crashes or hangs is a row
of the table, not the end of the run. Needs PyTorch with CUDA, and kat-otel beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.gpu.checks import CHECKS, Row

LIMIT_S = 540.0
MARK = "=> rows "
"""Begins the line on which a check's process gives its rows."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=CHECKS, action="append", help="this check alone")
    parser.add_argument("--rehearse", action="store_true", help="stand-in libcupti, no GPU")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--inside", choices=CHECKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        rows = CHECKS[options.inside].run(options.rehearse)
        print(MARK + json.dumps([row.__dict__ for row in rows]), flush=True)
        return 0
    end = time.monotonic() + LIMIT_S
    rows: list[Row] = []
    for name in options.only or CHECKS:
        limit = min(CHECKS[name].limit_s, end - time.monotonic())
        began = time.monotonic()
        print(f"{name}: {CHECKS[name].question}", flush=True)
        found = outcome(name, limit, rehearse=options.rehearse)
        for row in found:
            print(f"  {row.verdict:<8} {row.what}: {row.text}", flush=True)
        print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
        rows += found
    if options.json:
        options.json.write_text(json.dumps([row.__dict__ for row in rows], indent=1))
    print(table(rows))
    failed = [row for row in rows if row.verdict == "FAIL"]
    print(f"{len(rows)} rows, {len(failed)} failed" + (" (rehearsal)" if options.rehearse else ""))
    return 1 if failed else 0


def outcome(name: str, limit: float, *, rehearse: bool) -> list[Row]:
    if limit < 5:
        return [Row(name, name, "skipped", "no time left")]
    command = [sys.executable, str(Path(__file__).parent), "--inside", name]
    command += ["--rehearse"] if rehearse else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return [Row(name, name, "FAIL", f"not done within {limit:.0f} s")]
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return [Row(**row) for row in json.loads(line[len(MARK) :])]
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return [Row(name, name, "FAIL", f"exit code {done.returncode}: {' / '.join(said[-3:])}")]


def table(rows: list[Row]) -> str:
    lines = ["", "| check | what | verdict | found |", "|---|---|---|---|"]
    lines += [f"| {row.check} | {row.what} | {row.verdict} | {row.text} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
