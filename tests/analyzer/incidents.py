"""Incidents with evidence as the detector and the hardware's readings really write it."""

from __future__ import annotations

from kat_otel.hardware.readings import Reading
from kat_otel.kernels import family
from kat_otel.ttad.deviations import Observation
from kat_otel.ttad.hardware_evidence import deviation_evidence
from kat_otel.ttad.hardware_rules import RULES
from kat_otel.verdict import (
    Clock,
    Component,
    ComponentCandidate,
    Coverage,
    Culprit,
    Evidence,
    Incident,
    Instance,
    Kind,
    Report,
    Source,
    SpanRef,
    Step,
)

T0 = 1_700_000_000_000_000_000


def fact(
    name: str,
    signal: str,
    text: str,
    value: float | None = 1.0,
    expected: float | None = 0.0,
    unit: str | None = "ns",
) -> Evidence:
    return Evidence(id=name, text=text, signal=signal, value=value, expected=expected, unit=unit)


def steal(host: str = "node-0", number: int = 1, device: str = "") -> Evidence:
    """Rank 7's process gets its CPU for two thirds of the time only."""
    rule = next(rule for rule in RULES if rule.signal == "cpu_steal")
    reading = Reading("cpu_steal", "during", 0.31, T0, T0 + 10**10, 9, 7, host, device)
    seen = Observation(rule, reading, 0.01, 7, 0.0, deviates=True, since=True, weight=10.0)
    return deviation_evidence(number, seen)


def late_launch(
    *,
    kernel: str = "void flash_fwd_kernel<64>(Params)",
    host: str = "node-0",
    device: str = "GPU-7",
    group: str = "tp",
    more: tuple[Evidence, ...] = (),
    sure: bool = True,
    confidence: float = 0.7,
    component: Component = "host_cpu",
    kind: Kind = "late_launch",
) -> Incident:
    """Rank 7 launches late, ranks 0-6 wait; names are chosen by whoever wants to do harm."""
    return Incident(
        id="1f0c",
        status="ongoing",
        first_seen=T0,
        last_seen=T0 + 10**9,
        occurrences=5,
        steps=[12],
        page=True,
        kind=kind,
        scope="rank",
        culprit=Culprit(ranks=[7], devices=[device], hosts=[host], sure=sure),
        victims=[0, 1, 2, 3, 4, 5, 6],
        group=group,
        link=None,
        component=component,
        component_candidates=[
            ComponentCandidate(component=component, probability=confidence),
            ComponentCandidate(component="host_memory", probability=0.2),
        ],
        component_confidence=confidence,
        impact_ns=2_000_000,
        score=41.5,
        false_alarm_probability=1e-9,
        spans=[
            SpanRef(rank=7, stream=7, name=kernel, start_unix_nano=T0, duration_ns=240_000,
                    expected_ns=120_000, trace_id="0" * 31 + "1", span_id="0" * 15 + "1"),
        ],
        evidence=[
            fact("E1", "arrival_excess", "rank 7 arrives last at 3 of 8 collectives (no. 6, 7, 8) "
                 "and fell behind the peers by up to 350 µs from one collective to the next",
                 350e3),
            fact("E2", "wait", "the others wait 1.86 ms each for it in this step", 1.86e6),
            fact("E3", "walk_launch", "walked back from its late arrivals, 91 % of the lateness of "
                 "rank 7 (867 µs) lies in launches that come late from the host thread", 867e3),
            fact("E4", "kernel_time", "kernel time of rank 7 is normal (+3.6 %)", 3.6, 0.0, "%"),
            fact("E5", "kernel_duration",
                 f"{family(kernel)} takes 240 µs on rank 7, expected 120 µs", 240e3, 120e3),
            *more,
        ],
    )  # fmt: skip


def report(*incidents: Incident, model: str = "llama-70b", engine: str = "vllm") -> Report:
    return Report(
        instance=Instance(id="i", model=model, engine=engine, parallelism={"tp": 8}),
        source=Source(
            files=["rank0.json"],
            ranks=list(range(8)),
            world_size=8,
            resolution_ns=1,
            clock=Clock(state="aligned", max_offset_ns=0),
        ),
        coverage=Coverage(
            spans=100, kernels=80, aligned=78, unmatched=2, notes=["rank0.json: odd"]
        ),
        steps=[Step(step=12, start_unix_nano=T0, duration_ns=12_000_000, ranks=list(range(8)))],
        incidents=list(incidents),
    )
