"""What was read and what could not be judged: the part of a report beside its incidents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kat_otel.compiled import njit
from kat_otel.spans import NO_PARENT, UNKNOWN, Resource, SpanKind, SpanTable
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.features import Features
from kat_otel.ttad.loops import plain
from kat_otel.ttad.settings import Settings
from kat_otel.verdict import Abstention, Clock, ClockState, Instance, Source, Step

_LAUNCH, _ON_GPU = 4, 6  # of SpanKind, as numbers for the loop
_CLOCK_STATES: tuple[ClockState, ...] = ("aligned", "corrected", "unaligned")

__all__ = [
    "abstention",
    "instance_among",
    "instance_of",
    "judgement_notes",
    "merge_clocks",
    "notes_on",
    "source_among",
    "source_of",
    "step_of",
]


def abstention(table: SpanTable, alignment: Alignment, settings: Settings) -> Abstention | None:
    """Returns why the step cannot be judged, or None if it can."""
    if alignment.total == 0:
        return Abstention(
            reason="no_gpu_work",
            detail="the input holds no kernels, copies or collectives; was GPU activity recorded?",
        )
    if len(alignment.ranks) < 2:
        return None
    share = alignment.matched / alignment.total
    if share >= settings.min_aligned:
        return None
    sampled = _unpaired_launches(table)
    why = (
        f"only {100 * share:.0f} % of {alignment.total:,} GPU spans have a counterpart on another "
        f"rank (at least {100 * settings.min_aligned:.0f} % are needed)"
    )
    if sampled >= 0.2:
        why += f"; {100 * sampled:.0f} % of the launches and kernels lack the other half"
    return Abstention(
        reason="not_alignable",
        detail=f"{why}. The events look sampled or truncated, or the ranks do other work: "
        "record whole steps on all ranks.",
    )


def _unpaired_launches(table: SpanTable) -> float:
    """Share of GPU spans without a launch record, where launches are recorded at all."""
    gpu = table.on_gpu
    if not (table.kind == SpanKind.LAUNCH).any() or not gpu.any():
        return 0.0
    parent = table.parent[gpu]
    orphan = (parent == NO_PARENT) | (table.kind[parent] != SpanKind.LAUNCH)
    return float(orphan.mean())


def judgement_notes(table: SpanTable, alignment: Alignment, clock: Clock) -> list[str]:
    """Returns what could not be judged in this step, as sentences."""
    world = max((r.world_size for r in table.resources), default=UNKNOWN)
    launches = _launches(plain(table.kind), plain(table.parent))
    classes = len(np.unique(alignment.peers))
    return notes_on(alignment.ranks.tolist(), world, clock, launches, classes)


def notes_on(
    ranks: Sequence[int], world: int, clock: Clock, launches: tuple[int, int, int], classes: int
) -> list[str]:
    """Returns the sentences of :func:`judgement_notes`.

    Args:
        ranks: who was read.
        world: how many there are.
        clock: how their clocks relate.
        launches: number of launches, of spans on the GPU, and of those whose launch is known.
        classes: of ranks that do the same work.
    """
    notes: list[str] = []
    calls, work, launched = launches
    if len(ranks) == 1:
        notes.append(
            f"rank {ranks[0]} alone was read: peers are missing, so only its own repeated work "
            "was compared, and waiting in collectives cannot be told from slowness"
        )
    elif 0 < len(ranks) < world:
        notes.append(
            f"{world - len(ranks)} of {world} ranks were not read: a culprit among them cannot "
            "be named"
        )
    if len(ranks) > 1 and clock.state == "unaligned":
        notes.append(
            "no common collective tells how the clocks of the ranks relate: durations were "
            "compared, arrival times were not"
        )
    if clock.state == "corrected":
        notes.append(
            f"clocks differ by up to {clock.max_offset_ns:,} ns; corrected by the ends of common "
            "collectives"
        )
    if calls and launched < work:
        notes.append(
            f"{work - launched:,} of {work:,} GPU spans have no launch record "
            "(launched before the recording began, or dropped)"
        )
    if classes > 1:
        notes.append(
            f"the ranks form {classes} classes of different work (pipeline stages or roles); "
            "ranks were compared within their class only"
        )
    return notes


@njit("UniTuple(int64, 3)(uint8[::1], int32[::1])")
def _launches(kind: Any, parent: Any) -> Any:
    """Number of launches, of spans on the GPU, and of those whose launch is known."""
    launches = work = launched = 0
    for row in range(len(kind)):
        launches += kind[row] == _LAUNCH
        if kind[row] >= _ON_GPU:
            work += 1
            launched += parent[row] >= 0 and kind[parent[row]] == _LAUNCH
    return launches, work, launched


def instance_of(table: SpanTable) -> Instance | None:
    """Returns who the spans came from; None for files."""
    return instance_among(table.resources)


def instance_among(resources: Sequence[Resource]) -> Instance | None:
    """Returns who these workers are; None for files."""
    for resource in resources:
        if resource.instance:
            layout = {
                key: 1 + max(getattr(r, key) for r in resources) for key in ("tp", "pp", "dp", "ep")
            }
            model = resource.attributes.get("gen_ai.request.model")
            engine = resource.attributes.get("kat.engine")
            return Instance(
                id=resource.instance,
                model=None if model is None else str(model),
                engine=None if engine is None else str(engine),
                parallelism={k: v for k, v in layout.items() if v > 0} or None,
            )
    return None


def source_of(table: SpanTable, clock: Clock) -> Source:
    """Returns what was read."""
    seen: list[int] = np.flatnonzero(np.bincount(table.resource)).tolist()
    return source_among([table.resources[i] for i in seen], clock)


def source_among(used: Sequence[Resource], clock: Clock) -> Source:
    """Returns what was read of the workers that sent spans."""
    world = max((r.world_size for r in used), default=UNKNOWN)
    return Source(
        files=[],
        ranks=sorted({r.rank for r in used}),
        world_size=world if world > 0 else None,
        resolution_ns=max((r.resolution_ns for r in used), default=1),
        clock=clock,
    )


def step_of(step: int, alignment: Alignment, measured: Features) -> Step:
    """Returns the report's line on one step."""
    begin = round(float(measured.begin.min())) if len(measured.begin) else 0
    finish = round(float(measured.finish.max())) if len(measured.finish) else 0
    return Step(
        step=step,
        start_unix_nano=measured.origin_ns + begin,
        duration_ns=finish - begin,
        ranks=alignment.ranks.tolist(),
    )


def merge_clocks(clocks: list[Clock]) -> Clock:
    """Returns the worst clock state of several steps."""
    worst = max(clocks, key=lambda c: _CLOCK_STATES.index(c.state))
    return Clock(state=worst.state, max_offset_ns=max(c.max_offset_ns for c in clocks))
