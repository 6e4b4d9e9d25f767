"""Where the culprit's late or long spans were expected: the outlines that a timeline draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kat_otel.report.scene import Scene
from kat_otel.report.spans_drawn import Band
from kat_otel.spans import SpanKind

__all__ = ["Ghost", "ghosts_of"]

_MAX_GHOSTS = 24
_SEEN = 400
"""A deviation below the window divided by this is too thin to be seen."""


@dataclass(frozen=True, slots=True)
class Ghost:
    """Where a culprit's span was expected. Times are ns since the stage's origin.

    Attributes:
        excess_ns: how much later it began (``late``), or how much longer it took.
    """

    lane: int
    band: Band
    expected_start: int
    expected_end: int
    actual_start: int
    excess_ns: int
    late: bool


def ghosts_of(scene: Scene, lane_of: Mapping[int, int]) -> tuple[Ghost, ...]:
    """Returns the outlines, the largest deviation first.

    Args:
        scene: the incident in its step.
        lane_of: lane of every culprit rank that is drawn.
    """
    ghosts = _long_spans(scene, lane_of)
    if scene.stage.comparable and len(scene.stage.found):
        ghosts += _late_arrivals(scene, lane_of)
    ghosts.sort(key=lambda ghost: -ghost.excess_ns)
    return tuple(ghosts[:_MAX_GHOSTS])


def _long_spans(scene: Scene, lane_of: Mapping[int, int]) -> list[Ghost]:
    """Spans that the incident cites with an expected duration, outside collectives."""
    stage, ghosts = scene.stage, list[Ghost]()
    table = stage.table
    visible = (scene.window[1] - scene.window[0]) / _SEEN
    for row, expected in scene.refs.items():
        rank, duration = int(table.rank[row]), int(table.duration_ns[row])
        if expected is None or rank not in lane_of or duration - expected < visible:
            continue
        if table.kind[row] == SpanKind.COLLECTIVE:
            continue
        begin = int(table.start_ns[row] - stage.shift[rank]) - stage.origin
        ghosts.append(
            Ghost(
                lane=lane_of[rank],
                band=Band.WORK,
                expected_start=begin,
                expected_end=begin + expected,
                actual_start=begin,
                excess_ns=duration - expected,
                late=False,
            )
        )
    return ghosts


def _late_arrivals(scene: Scene, lane_of: Mapping[int, int]) -> list[Ghost]:
    """Where the culprits should have arrived at the collectives that the incident cites."""
    stage = scene.stage
    found = stage.found
    cited = np.isin(found.row, np.fromiter(scene.refs, dtype=np.int64)) & found.present
    transfer = np.where(found.present, found.end - found.last[:, None], 0)
    usual = np.maximum(np.median(transfer, axis=1), 1).astype(np.int64)
    visible = (scene.window[1] - scene.window[0]) / _SEEN
    ghosts: list[Ghost] = []
    for column, rank in enumerate(found.ranks.tolist()):
        if rank not in lane_of:
            continue
        worth = np.flatnonzero(cited[:, column] & (found.late[:, column] > visible))
        for index in worth[np.argsort(-found.late[worth, column])][:_MAX_GHOSTS]:
            late = int(found.late[index, column])
            actual = int(found.start[index, column]) - stage.origin
            ghosts.append(
                Ghost(
                    lane=lane_of[rank],
                    band=Band.COLLECTIVE,
                    expected_start=actual - late,
                    expected_end=actual - late + int(usual[index]),
                    actual_start=actual,
                    excess_ns=late,
                    late=True,
                )
            )
    return ghosts
