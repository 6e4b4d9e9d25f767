"""One simulated worker: a process that knows the whole group's script and sends its own part.

    python -m kat_otel.demo.worker SCENARIO RANK PORT

The ranks of a step depend on each other through collectives. Instead of talking, every worker
simulates the whole group from the same seed and sends the spans of its own rank.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import grpc

from kat_otel.demo.scenario import Scenario
from kat_otel.identity import nonce_of
from kat_otel.lmdia.replay import Times
from kat_otel.lmdia.table import to_table
from kat_otel.otlp import encode_traces

__all__ = ["READY", "main"]

READY = "ready"
"""What a worker says once it can start; it starts at the Unix ns it then reads."""

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_DEADLINE_S = 5.0


def main(arguments: Sequence[str]) -> int:
    """Sends all steps, each at its time. Returns the exit code; 1 if its parent is gone."""
    scenario, rank, port = Scenario.from_text(arguments[0]), int(arguments[1]), int(arguments[2])
    parent = os.getppid()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        connection: Any = channel
        export = connection.unary_unary(_EXPORT)
        _play(scenario, 0)  # first use of everything, before the clock runs
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()
        told = sys.stdin.readline()  # "" if the parent is gone
        if not told:
            return 1
        begin_ns = int(told)
        nonce = nonce_of(scenario.instance)
        for step in range(scenario.steps):
            if os.getppid() != parent:
                return 1
            program, times = _play(scenario, step)
            zero = begin_ns + step * scenario.interval_ms * 1_000_000
            table = to_table(program, times, step=step, zero_unix_ns=zero, nonce=nonce, rows=[rank])
            requests = list(encode_traces(table))
            time.sleep(max(0.0, (zero - time.time_ns()) / 1e9))
            for request in requests:
                export(request, timeout=_DEADLINE_S, wait_for_ready=True)
    return 0


def _play(scenario: Scenario, step: int) -> tuple[Any, Times]:
    return scenario.group.play(step, scenario.program_at(step))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
