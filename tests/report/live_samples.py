"""Incidents and instances as a running processor sees them, for tests of what people see of it."""

from __future__ import annotations

from typing import Any

from kat_otel.live import (
    LateRank,
    LeftOut,
    Live,
    LiveCondition,
    LiveIncident,
    LiveInstance,
)
from kat_otel.operators import Silence
from kat_otel.verdict import Culprit, Evidence, Incident

NOW = 1_790_000_000_000_000_000
S = 1_000_000_000
WELL = LiveCondition(name="judging", ok=True, detail="runs")


def incident(identity: str = "3fa90c12ab77", **changed: Any) -> Incident:
    """Rank 5 launches late and seven others wait; it pages."""
    ranks = changed.pop("ranks", [5])
    values: dict[str, Any] = {
        "id": identity,
        "status": "ongoing",
        "first_seen": NOW - 600 * S,
        "last_seen": NOW - S,
        "occurrences": 1_204,
        "steps": [],
        "page": True,
        "kind": "late_launch",
        "scope": "rank",
        "culprit": Culprit(ranks=ranks, devices=["5"], hosts=["node-7"], sure=True),
        "victims": [rank for rank in range(8) if rank not in ranks],
        "group": None,
        "link": None,
        "component": "host_cpu",
        "component_candidates": [],
        "component_confidence": 0.71,
        "impact_ns": 2_410_000,
        "score": 9.0,
        "false_alarm_probability": 1e-6,
        "spans": [],
        "evidence": [
            Evidence(
                id=f"E{number}",
                text=f"fact {number}: rank 5 arrives last at 31 of 32 collectives",
                signal="arrival",
                value=31,
                expected=4,
                unit=None,
            )
            for number in range(1, 4)
        ],
    }
    return Incident(**values | changed)


def silence(**changed: Any) -> Silence:
    """Two hours for rank 5 of llama."""
    values: dict[str, Any] = {
        "id": "1f2e3d4c",
        "begin_unix_nano": NOW,
        "end_unix_nano": NOW + 7_200 * S,
        "instance": "llama",
        "ranks": (5,),
        "by": "ann@ops",
        "reason": "ticket 4711",
    }
    return Silence(**values | changed)


def live_incident(
    report: Incident, *, instance: str = "llama", quiet: Silence | None = None, **changed: Any
) -> LiveIncident:
    """As the processor shows it."""
    values: dict[str, Any] = {
        "instance": instance,
        "id": report.id,
        "sentence": "rank 5: late launch",
        "kind": report.kind,
        "component": report.component,
        "page": report.page and quiet is None,
        "occurrences": report.occurrences,
        "impact_ns": report.impact_ns,
        "first_seen_ns": report.first_seen,
        "last_seen_ns": report.last_seen,
        "silence": quiet,
        "report": report,
    }
    return LiveIncident(**values | changed)


def live_instance(name: str = "llama", **changed: Any) -> LiveInstance:
    """Eight ranks at 55 steps a second; rank 5 comes late."""
    late = ((5, 2_410_000), (1, 310_000), (3, 31_000), (0, 22_000), (7, 12_000))
    values: dict[str, Any] = {
        "instance": name,
        "model": "Llama-3.3-70B",
        "engine": "vllm",
        "step": 123_456,
        "step_ns": 17_200_000,
        "last_steps_ns": [17_000_000 + 150_000 * (n % 7) for n in range(32)],
        "steps_per_s": 55.2,
        "ranks": 8,
        "world_size": 8,
        "hosts": 1,
        "missing_ranks": [],
        "judged_share": 1.0,
        "aligned_share": 0.993,
        "abstained": None,
        "worst_ranks": [LateRank(rank=r, host="node-7", late_ns=ns) for r, ns in late],
        "judged_unix_nano": NOW - S,
    }
    return LiveInstance(**values | changed)


def live(**changed: Any) -> Live:
    """Two instances, a page, a finding and a silenced incident."""
    values: dict[str, Any] = {
        "version": "0.1.0",
        "at_unix_nano": NOW,
        "conditions": [WELL],
        "instances": [live_instance(), live_instance("qwen-moe-prefill", world_size=64, ranks=63)],
        "incidents": [
            live_incident(incident()),
            live_incident(
                incident("99110c12ab77", ranks=[6], page=False, component="gpu_clock"),
                instance="qwen-moe-prefill",
            ),
            live_incident(incident("4410aa12ab77", ranks=[1]), quiet=silence()),
        ],
        "silences": [silence()],
        "left_out": LeftOut(),
    }
    return Live(**values | changed)
