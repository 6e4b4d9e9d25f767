"""How often TTAD is right: faults put into groups, and healthy groups left alone.

Not a timing: the share of injected faults that are named rightly with nobody else blamed, and
of healthy recordings in which something is named. The groups are those of
tests/detection/test_injections.py (two semi-synthetic from real traces, one synthetic); seeds
differ from the tests'. Run: python bench/detection.py [--seeds 20] [--healthy 100]
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import (
    Injected,
    late_launches,
    slow_collectives,
    slow_copies,
    slow_kernels,
    slow_rank,
)
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.real import groups
from kat_otel.lmdia.recording import Group, record
from kat_otel.spans import SpanTable
from kat_otel.ttad import analyze

TRACES = Path(
    os.environ.get("KAT_TRACES") or Path(__file__).resolve().parents[2] / "shared" / "traces"
)
FIRST_SEED = 1000
LONG_ENOUGH_NS = 8_000


def programs() -> dict[str, Program]:
    """The three groups."""
    return {
        **groups(TRACES, workers(8)),
        "decode": decode_program(replace(LLAMA_70B, layers=20), workers(8)),
    }


def named(program: Program, fault: Injected, seed: int, baseline: SpanTable | None) -> str:
    """``right``, ``missed`` (nothing said) or ``wrong`` (another kind or somebody else)."""
    table = record(Group(program, seed), [0], program_at=lambda _: fault.program)
    incidents = analyze(table, baseline=baseline).incidents
    if not incidents:
        return "missed"
    truth = fault.fault
    right = all(tuple(i.culprit.ranks) == truth.ranks and i.kind in truth.kinds for i in incidents)
    return "right" if right else "wrong"


def main() -> None:
    """Prints one line per group and fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--healthy", type=int, default=100)
    options = parser.parse_args()
    print(f"{'group':8} {'fault':30} right  missed  wrong")
    for name, program in programs().items():
        long = np.flatnonzero(program.compute & (program.own[0] >= LONG_ENOUGH_NS))
        baseline = record(Group(program, 99), [0])
        said: dict[str, Counter[str]] = {}
        for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
            rng = np.random.default_rng(seed)
            rank, at = int(rng.integers(8)), int(rng.integers(len(program) // 5, len(program) // 2))
            three = rng.choice(long, 3, replace=False).tolist()
            faults = {
                "compute of a rank 10 % slower": (slow_rank(program, rank, 10), None),
                "three kernels x2": (slow_kernels(program, rank, three, 2.0), None),
                "launches 5 ms late": (late_launches(program, rank, 5e6, [at]), None),
                "copies x20": (slow_copies(program, rank, 20.0), None),
                "collectives x1.5, baseline": (slow_collectives(program, 1.5), baseline),
            }
            for fault, (injected, usual) in faults.items():
                said.setdefault(fault, Counter())[named(program, injected, seed, usual)] += 1
        for fault, count in said.items():
            figures = f"{count['right']:5d}  {count['missed']:6d}  {count['wrong']:5d}"
            print(f"{name:8} {fault:30} {figures}")
        alarms = sum(
            bool(analyze(record(Group(program, seed), [0])).incidents)
            for seed in range(FIRST_SEED, FIRST_SEED + options.healthy)
        )
        print(f"{name:8} healthy: {alarms} of {options.healthy} recordings with an incident")


if __name__ == "__main__":
    main()
