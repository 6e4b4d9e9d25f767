"""What the timeline of an incident shows: plain columns, prepared from the spans.

No drawing here. The page gets the culprits, the waiters and some others as lanes; the spans
of the incident's step with what is too short to see merged; how long each rank waited in
each collective; and where the culprit's late or long spans were expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from kat_otel.report.ghosts import Ghost, ghosts_of
from kat_otel.report.scene import Scene, scene_of
from kat_otel.report.spans_drawn import Band, DrawnSpans, Look, drawn_spans
from kat_otel.report.stage import Stage
from kat_otel.verdict import Incident

__all__ = ["Band", "DrawnSpans", "Ghost", "Lane", "Look", "Role", "Timeline", "timeline"]

MAX_LANES = 24
"""Ranks drawn; of a fleet the culprits, those that wait longest, and a few others."""
_CROWDED = 14
"""An incident longer than its worst deviation times this is first shown around that."""
MAX_SPANS = 6_000
"""Spans drawn per incident; the rest is merged with its neighbours."""


class Role(IntEnum):
    """What a rank is in the incident."""

    OTHER = 0
    VICTIM = 1
    CULPRIT = 2


@dataclass(frozen=True, slots=True)
class Lane:
    """One rank; ``wait_ns`` is what it waited in collectives inside the window."""

    rank: int
    role: Role
    wait_ns: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything that the drawing needs; times in ns since the stage's origin.

    Attributes:
        scene: the incident in its step.
        length_ns: the whole step.
        view: start and end of what is shown at first; the rest of the step can be scrolled to.
        whole: start and end of the whole incident.
        lanes: the ranks drawn, ascending.
        spans: what is drawn in them.
        ghosts: where the culprit's spans were expected.
        hidden_ranks: ranks that were read but have no lane.
    """

    scene: Scene
    length_ns: int
    view: tuple[int, int]
    whole: tuple[int, int]
    lanes: tuple[Lane, ...]
    spans: DrawnSpans
    ghosts: tuple[Ghost, ...]
    hidden_ranks: int


def timeline(stage: Stage, incident: Incident) -> Timeline:
    """Prepares the timeline of ``incident`` in ``stage``."""
    scene = scene_of(stage, incident)
    (low, high), length = scene.window, stage.end - stage.origin
    lanes = _lanes(scene, incident)
    margin = max(1, (high - low) // 16)
    whole = (
        max(0, low - stage.origin - margin),
        min(length, high - stage.origin + margin),
    )
    ghosts = ghosts_of(
        scene, {lane.rank: k for k, lane in enumerate(lanes) if lane.role == Role.CULPRIT}
    )
    view = _focus(whole, ghosts)
    return Timeline(
        scene=scene,
        length_ns=length,
        view=view,
        whole=whole,
        lanes=lanes,
        spans=drawn_spans(scene, [lane.rank for lane in lanes], view=view, budget=MAX_SPANS),
        ghosts=ghosts,
        hidden_ranks=len(stage.ranks) - len(lanes),
    )


def _focus(whole: tuple[int, int], ghosts: tuple[Ghost, ...]) -> tuple[int, int]:
    """The costliest deviation and its surroundings, where the whole incident would hide it."""
    if not ghosts:
        return whole
    worst = ghosts[0]
    size = max(worst.excess_ns, worst.expected_end - worst.expected_start)
    if whole[1] - whole[0] <= _CROWDED * size:
        return whole
    end = max(worst.actual_start, worst.expected_end)
    return max(whole[0], worst.expected_start - 3 * size), min(whole[1], end + 4 * size)


def _lanes(scene: Scene, incident: Incident) -> tuple[Lane, ...]:
    stage = scene.stage
    waited = (stage.waits * scene.in_window[:, None]).sum(axis=0)
    total = dict(zip(stage.found.ranks.tolist(), waited.tolist(), strict=True))
    culprits, victims = set(incident.culprit.ranks), set(incident.victims)

    def role(rank: int) -> Role:
        if rank in culprits:
            return Role.CULPRIT
        return Role.VICTIM if rank in victims else Role.OTHER

    lanes = [Lane(int(k), role(int(k)), int(total.get(int(k), 0))) for k in stage.ranks]
    lanes.sort(key=lambda lane: (-lane.role, -lane.wait_ns, lane.rank))
    culprit_share = MAX_LANES // 2  # half the picture at most, so that some waiters are seen
    named = [lane for lane in lanes if lane.role == Role.CULPRIT][:culprit_share]
    others = [lane for lane in lanes if lane.role != Role.CULPRIT][: MAX_LANES - len(named)]
    return tuple(sorted([*named, *others], key=lambda lane: lane.rank))
