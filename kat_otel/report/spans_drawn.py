"""The spans of a timeline as integer columns, bounded: what is too short to see is merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from kat_otel.report.scene import Scene
from kat_otel.spans import SpanKind, SpanTable

__all__ = ["Band", "DrawnSpans", "Look", "drawn_spans"]

Int64 = NDArray[np.int64]

_PIXELS = 2_000
"""What is shorter than the view divided by this can't be seen apart from its neighbour."""


class Band(IntEnum):
    """Where in its lane a span is drawn."""

    HOST = 0
    WORK = 1
    COLLECTIVE = 2


class Look(IntEnum):
    """What a span looks like."""

    COMPUTE = 0
    COPY = 1
    TRANSFER = 2
    WAIT = 3
    LAUNCH = 4
    SYNC = 5
    HOST_OP = 6


@dataclass(frozen=True, slots=True)
class DrawnSpans:
    """Columns of equal length; times are ns since the timeline's origin.

    Attributes:
        lane, band, look: where and how it is drawn, int64.
        start, duration: ns, int64.
        name: index into ``names``; -1 for merged spans, int64.
        merged: how many spans were merged into this one, 1 if none, int64.
        fill: percent of its duration that is really occupied; less than 100 if merged, int64.
        flagged: whether the incident cites it, int64 0 or 1.
        names: the texts.
    """

    lane: Int64
    band: Int64
    look: Int64
    start: Int64
    duration: Int64
    name: Int64
    merged: Int64
    fill: Int64
    flagged: Int64
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lane)


_LOOK_OF_KIND = np.full(256, -1, dtype=np.int64)
for _kind, _look in (
    (SpanKind.HOST_OP, Look.HOST_OP),
    (SpanKind.LAUNCH, Look.LAUNCH),
    (SpanKind.SYNC, Look.SYNC),
    (SpanKind.KERNEL, Look.COMPUTE),
    (SpanKind.MEMCPY, Look.COPY),
    (SpanKind.MEMSET, Look.COPY),
    (SpanKind.COLLECTIVE, Look.TRANSFER),
):
    _LOOK_OF_KIND[_kind] = _look


def drawn_spans(
    scene: Scene, ranks: Sequence[int], *, view: tuple[int, int], budget: int
) -> DrawnSpans:
    """Makes the columns.

    Args:
        scene: the step to draw.
        ranks: rank of every lane, ascending.
        view: what is shown at first, ns since the origin: seen in more detail than the rest.
        budget: how many spans may be drawn. Spans that the incident cites are never merged.
    """
    stage = scene.stage
    table, found = stage.table, stage.found
    lane_ranks = np.array(ranks, dtype=np.int64)
    keep = np.isin(table.rank, lane_ranks) & (_LOOK_OF_KIND[table.kind] >= 0)
    keep &= ~_holds_host_work(table)
    rows = np.flatnonzero(keep)
    rank = table.rank[rows].astype(np.int64)
    start = table.start_ns[rows] - stage.shift[rank] - stage.origin
    look = _LOOK_OF_KIND[table.kind[rows]]
    band = np.where(look >= Look.LAUNCH, int(Band.HOST), int(Band.WORK))
    band[look == Look.TRANSFER] = Band.COLLECTIVE
    waited = np.zeros(len(table), dtype=np.int64)
    waited[found.row[found.present]] = stage.waits[found.present]
    wait = np.minimum(waited[rows], table.duration_ns[rows])
    marked = np.isin(rows, np.fromiter(scene.refs, dtype=np.int64))

    front = wait > 0  # the waiting part is a span of its own, drawn before the transfer
    columns = {
        "lane": np.searchsorted(lane_ranks, rank),
        "band": band,
        "look": look,
        "start": start + wait,
        "duration": table.duration_ns[rows] - wait,
        "name": table.name[rows].astype(np.int64),
        "merged": np.ones(len(rows), dtype=np.int64),
        "fill": np.full(len(rows), 100),
        "flagged": marked.astype(np.int64),
    }
    waiting = {key: values[front] for key, values in columns.items()}
    waiting["look"] = np.full(int(front.sum()), int(Look.WAIT))
    waiting["start"], waiting["duration"] = start[front], wait[front]
    columns = {key: np.concatenate([values, waiting[key]]) for key, values in columns.items()}
    # host work far outside the GPU's extent (warm-up before the window) is not part of the picture
    seen = (columns["start"] + columns["duration"] >= 0) | (columns["band"] != Band.HOST)
    columns = {key: values[seen] for key, values in columns.items()}
    columns = _within_budget(columns, view, budget)
    used, place = np.unique(columns["name"], return_inverse=True)
    has_merged = bool(len(used)) and used[0] < 0
    names = tuple(table.text(int(name)) for name in used if name >= 0)
    columns["name"] = place.reshape(-1) - (1 if has_merged else 0)
    return DrawnSpans(names=names, **columns)


def _holds_host_work(table: SpanTable) -> NDArray[np.bool_]:
    """Host operations that hold other host work say nothing that their leaves don't."""
    host = (table.kind >= SpanKind.HOST_OP) & (table.kind <= SpanKind.SYNC)
    parents = table.parent[host & (table.parent >= 0)]
    holds = np.zeros(len(table), dtype=bool)
    holds[parents] = True
    return holds & (table.kind == SpanKind.HOST_OP)


def _within_budget(
    columns: dict[str, Int64], view: tuple[int, int], budget: int
) -> dict[str, Int64]:
    """Merges what is short: the view keeps its detail as long as its share of the budget lasts."""
    start, end = columns["start"], columns["start"] + columns["duration"]
    before, after = end < view[0], start > view[1]
    grain = max(1, (view[1] - view[0]) // _PIXELS)
    shown = _merged(_where(columns, ~(before | after)), grain, budget * 3 // 4)
    left = (budget - len(shown["lane"])) // 2
    # each side by itself: nothing may be merged across the view
    parts = [_merged(_where(columns, side), grain * 3, left) for side in (before, after)]
    return {key: np.concatenate([shown[key], *(part[key] for part in parts)]) for key in columns}


def _where(columns: dict[str, Int64], rows: NDArray[np.bool_]) -> dict[str, Int64]:
    return {key: values[rows] for key, values in columns.items()}


def _merged(columns: dict[str, Int64], grain: int, budget: int) -> dict[str, Int64]:
    """Merges spans shorter than ``grain`` ns, then twice that, until they fit the budget."""
    merged = columns
    for _ in range(40):  # 2**40 grains are more than any step has
        merged = _merge_short(columns, grain)
        if len(merged["lane"]) <= budget:
            break
        grain *= 2
    return merged


def _merge_short(columns: dict[str, Int64], grain: int) -> dict[str, Int64]:
    short = (columns["duration"] < grain) & (columns["flagged"] == 0)
    if not short.any():
        return columns
    at = np.flatnonzero(short)
    start, end = columns["start"], columns["start"] + columns["duration"]
    bucket = start[at] // grain
    key = (columns["lane"][at] * 4 + columns["band"][at]) * 8 + columns["look"][at]
    order = np.lexsort((start[at], bucket, key))
    at, key, bucket = at[order], key[order], bucket[order]
    new = np.ones(len(at), dtype=bool)
    new[1:] = (np.diff(key) != 0) | (np.diff(bucket) != 0)
    begins = np.flatnonzero(new)
    first = at[begins]
    count = np.diff(begins, append=len(at))
    together = {name: values[first] for name, values in columns.items()}
    begin = np.minimum.reduceat(start[at], begins)
    extent = np.maximum.reduceat(end[at], begins) - begin
    busy = np.add.reduceat(columns["duration"][at] * columns["fill"][at], begins)
    together["start"], together["duration"] = begin, extent
    together["fill"] = np.clip(busy // np.maximum(extent, 1), 0, 100)
    together["merged"] = np.add.reduceat(columns["merged"][at], begins)
    together["name"] = np.where(count == 1, together["name"], -1)
    return {
        name: np.concatenate([values[~short], together[name]]) for name, values in columns.items()
    }
