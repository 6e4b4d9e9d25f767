"""A hand-made decode step of eight ranks and the report on it, for tests of the report.

Rank 7 launches its third layer 2 ms late; the other ranks wait in that layer's all-reduce.
Rank 3 has one kernel that takes twice its time in the first layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder
from kat_otel.verdict import (
    Abstention,
    Clock,
    ComponentCandidate,
    Coverage,
    Culprit,
    Evidence,
    Incident,
    Report,
    Source,
    SpanRef,
    Step,
)

RANKS = 8
LAYERS = 6
T0 = 1_700_000_000_000_000_000
US = 1_000
LATE = 2_000 * US
HOSTILE = "evil</script><img src=x onerror=alert(1)>&\"'\x1b[2J\u202e"
GEMM = "void cutlass::gemm<cutlass::half_t, 128>(Params)"
ALL_REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevComm*)"
_COMPUTE = ((GEMM, 120), ("void flash_fwd_kernel<64>(Params)", 80), (HOSTILE, 40))


def table(*, ranks: int = RANKS, layers: int = LAYERS, clock_error_ns: int = 0) -> SpanTable:
    """The step's spans; ``clock_error_ns`` shifts the clock of rank 1."""
    builder = SpanTableBuilder()
    arrival = np.zeros((layers, ranks), dtype=np.int64)
    now = np.arange(ranks, dtype=np.int64) * US
    rows: list[tuple[int, int, int, str, SpanKind, int]] = []
    for layer in range(layers):
        for rank in range(ranks):
            if layer == 2 and rank == 7:
                now[rank] += LATE
            rows.append(
                (rank, int(now[rank]) - 30 * US, 5 * US, "cudaLaunchKernel", SpanKind.LAUNCH, -1)
            )
            for name, micros in _COMPUTE:
                slow = 2 if (layer, rank, name) == (0, 3, GEMM) else 1
                duration = micros * US * slow + (rank * 7 + layer * 3) % 5 * 100
                rows.append((rank, int(now[rank]), duration, name, SpanKind.KERNEL, 7))
                now[rank] += duration + 2 * US
            arrival[layer, rank] = now[rank]
        end = int(arrival[layer].max()) + 60 * US
        for rank in range(ranks):
            begin = int(arrival[layer, rank])
            rows.append((rank, begin, end - begin, ALL_REDUCE, SpanKind.COLLECTIVE, 20))
        now[:] = end + np.arange(ranks) * US
    for rank in range(ranks):
        resource = builder.add_resource(
            Resource(rank=rank, world_size=ranks, device=rank, host="node-a", source=f"rank{rank}")
        )
        mine = [row for row in rows if row[0] == rank]
        error = clock_error_ns if rank == 1 else 0
        builder.append(
            len(mine),
            start_ns=[T0 + row[1] + error for row in mine],
            duration_ns=[row[2] for row in mine],
            name=[builder.strings.add(row[3]) for row in mine],
            kind=[int(row[4]) for row in mine],
            stream=[row[5] for row in mine],
            resource=resource,
            step=12,
        )
    return builder.build()


def ref(spans: SpanTable, row: int, expected_ns: int | None) -> SpanRef:
    """A reference to the span in ``row``."""
    return SpanRef(
        rank=int(spans.rank[row]),
        stream=int(spans.stream[row]),
        name=spans.name_of(row),
        start_unix_nano=int(spans.start_ns[row]),
        duration_ns=int(spans.duration_ns[row]),
        expected_ns=expected_ns,
        trace_id="0" * 31 + "1",
        span_id=f"{row + 1:016x}",
    )


def late_launch(spans: SpanTable) -> Incident:
    """Rank 7 makes everyone wait in the third layer."""
    mine = np.flatnonzero((spans.rank == 7) & (spans.kind == SpanKind.COLLECTIVE))
    row = int(mine[2])
    return Incident(
        id="1f0c",
        status="open",
        first_seen=T0,
        last_seen=int(spans.end_ns[row]),
        occurrences=1,
        steps=[12],
        page=True,
        kind="late_launch",
        scope="rank",
        culprit=Culprit(ranks=[7], devices=["GPU-7"], hosts=["node-a"], sure=True),
        victims=[0, 1, 2, 3, 4, 5, 6],
        group="tp",
        link=None,
        component="host_cpu",
        component_candidates=[
            ComponentCandidate(component="host_cpu", probability=0.6),
            ComponentCandidate(component="host_memory", probability=0.25),
        ],
        component_confidence=0.6,
        impact_ns=1_990_000,
        score=41.5,
        false_alarm_probability=2e-9,
        spans=[ref(spans, row, None)],
        evidence=[
            Evidence(
                id="e1",
                text="rank 7 arrives 2.0 ms after the median of the others at all-reduce 3",
                signal="arrival",
                value=2.0,
                expected=0.0,
                unit="ms",
            ),
            Evidence(
                id="e2",
                text="its compute kernels take as long as its peers'",
                signal="duration",
                value=1.0,
                expected=1.0,
                unit="ratio",
            ),
        ],
    )


def diagnosis() -> dict[str, Any]:
    """What the analyzer says of the late rank; one claim cites what no line shows."""
    return {
        "summary": "Rank 7's Python thread was held up before the third layer.",
        "root_cause": "garbage_collection",
        "component": "host_cpu",
        "culprit_ranks": [7],
        "causal_chain": [
            {"claim": "The launches of rank 7 stop for 2 ms.", "evidence_ids": ["e1"]},
            {"claim": "Its kernels take no longer.", "evidence_ids": ["e2", "e9"]},
        ],
        "actions": ["Freeze the garbage collector after warm-up.", "Pin the launching thread."],
        "confidence": 0.7,
        "abstained": False,
        "mode": "knowledge_base",
    }


def slow_kernel(spans: SpanTable) -> Incident:
    """Rank 3 takes twice as long for one kernel of the first layer."""
    name = spans.strings.find(GEMM)
    row = int(np.flatnonzero((spans.rank == 3) & (spans.name == name))[0])
    return Incident(
        id="2a77",
        status="resolved",
        first_seen=T0,
        last_seen=T0 + 1_000_000,
        occurrences=1,
        steps=[12],
        page=False,
        kind="slow_kernel",
        scope="kernel",
        culprit=Culprit(ranks=[3], devices=[], hosts=[], sure=True),
        victims=[0, 1, 2, 4, 5, 6, 7],
        group=None,
        link=None,
        component="gpu_compute",
        component_candidates=[ComponentCandidate(component="gpu_compute", probability=0.4)],
        component_confidence=0.4,
        impact_ns=118_000,
        score=12.25,
        false_alarm_probability=3e-5,
        spans=[ref(spans, row, 120 * US)],
        evidence=[
            Evidence(
                id="e1",
                text=f"{HOSTILE} next to it is normal",
                signal="duration",
                value=240.0,
                expected=120.0,
                unit="us",
            )
        ],
    )


def report(spans: SpanTable, *incidents: Incident, notes: tuple[str, ...] = ()) -> Report:
    """The report on ``spans`` with the given incidents."""
    kernels = int(spans.on_gpu.sum())
    ranks = sorted({int(k) for k in spans.rank})
    start, end = int(spans.start_ns.min()), int(spans.end_ns.max())
    return Report(
        source=Source(
            files=[f"rank{k}.json" for k in ranks],
            ranks=ranks,
            world_size=len(ranks),
            resolution_ns=1,
            clock=Clock(state="aligned", max_offset_ns=0),
        ),
        coverage=Coverage(
            spans=len(spans), kernels=kernels, aligned=kernels - 4, unmatched=4, notes=list(notes)
        ),
        steps=[Step(step=12, start_unix_nano=start, duration_ns=end - start, ranks=ranks)],
        incidents=list(incidents),
    )


def abstained() -> Report:
    """A report without a verdict."""
    spans = table(ranks=2, layers=1)
    made = report(spans)
    made.abstained = Abstention(
        reason="the trace was sampled", detail="kernels of ranks 0 and 1 don't correspond"
    )
    return made
