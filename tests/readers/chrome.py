"""Makes Chrome traces for tests: events by what they mean, and files of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


def host(name: str, ts: float, dur: float, *, tid: int = 1, cat: str = "cpu_op") -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 100, "tid": tid, "ts": ts, "dur": dur}


def launch(ts: float, correlation: int, *, tid: int = 1, dur: float = 2) -> dict[str, Any]:
    event = host("cudaLaunchKernel", ts, dur, tid=tid, cat="cuda_runtime")
    return event | {"args": {"correlation": correlation}}


def kernel(
    ts: float, correlation: int, *, name: str = "gemm", dur: float = 5, stream: int = 7, **args: Any
) -> dict[str, Any]:
    known = {"device": 0, "stream": stream, "correlation": correlation, "grid": [1, 2, 3]}
    return {
        "ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": stream, "ts": ts, "dur": dur,
        "args": known | {"block": [32, 1, 1]} | args,
    }  # fmt: skip


def trace(events: list[Any], rank: int | None = 0, world: int = 2, **more: Any) -> dict[str, Any]:
    info = {} if rank is None else {"distributedInfo": {"rank": rank, "world_size": world}}
    return {"schemaVersion": 1, **info, **more, "traceEvents": events}


def write(path: Path, content: Any) -> Path:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path
