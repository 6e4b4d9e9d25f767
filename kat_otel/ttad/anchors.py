"""What each arrival at a meeting was bound by: the GPU's own work, or the host thread.

A collective releases the GPU streams of its members, not their host threads: a host that runs
ahead fills its launch queue and a host that lags stays behind, over any number of collectives,
until it waits for the GPU itself. So there are two clocks to measure a stretch of work by:

* ``gpu``: from the previous release to the arrival, where the GPU worked through, or where the
  host waited for the GPU after that release;
* ``host``: from the previous meeting's launch to this one's, where the GPU waited for launches
  and the host never waited for the GPU.

Measuring a lagging host from each release anew would count one stall at every later meeting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import SpanKind, SpanTable
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.features import Features
from kat_otel.ttad.meetings import Meetings

__all__ = [
    "SLACK_NS",
    "Anchors",
    "anchors",
    "before_on_stream",
    "idle_launch_delay_ns",
    "launch_bound",
]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

SLACK_NS = 4_000.0
"""Start within this of what was waited for: kernel-to-kernel gap plus launch jitter."""

_BLOCKED_NS = 20_000.0
"""A synchronisation call of this length has waited; shorter ones found the work done."""

_LONGEST_IDLE_DELAY_NS = 30_000.0
"""Launch to start on an idle stream takes less than this."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """How each arrival came about; arrays ``(C, R)``.

    Attributes:
        host: measured by the host's clock: launches bound it and the host ran free.
        synced: the host waited for the GPU between the two launches, after the release.
        entry: the rank's first meeting: what came before is not in the recording.
        launch: start of the launch call of the meeting's own kernel (ns).
        stretch: elapsed time by the clock that applies (ns).
        other: elapsed time on the host's clock, for peers to be compared by (ns).
        busy: time the GPU needs for the stretch's own work (ns).
    """

    host: Bool
    synced: Bool
    entry: Bool
    launch: Float
    stretch: Float
    other: Float
    busy: Float


def anchors(table: SpanTable, features: Features, alignment: Alignment, met: Meetings) -> Anchors:
    """Finds what bound every arrival."""
    shape = met.member.shape
    launch = np.where(met.member, features.launch[met.node], 0.0)
    known = met.member & features.launched[met.node]
    before = np.maximum(met.previous, 0)
    entry = met.member & (met.previous < 0)
    if not shape[0]:
        none = np.zeros(shape, np.bool_)
        return Anchors(none, none, none, launch, launch, launch, launch)
    last_launch = np.take_along_axis(launch, before, axis=0)
    last_known = np.take_along_axis(known, before, axis=0)
    release = np.take_along_axis(met.release, before, axis=0)
    since = np.where(entry, -np.inf, release)
    bound = launch_bound(features, alignment)
    late_launches = np.zeros(shape, np.int64)
    busy, synced = np.zeros(shape), np.zeros(shape, np.bool_)
    waits = _host_waits(table, features, alignment)
    for column in range(shape[1]):  # one turn per rank
        nodes = np.flatnonzero(features.present[:, column])
        start = features.start[nodes, column]
        order = np.argsort(start, kind="stable")
        start, nodes = start[order], nodes[order]
        low = np.searchsorted(start, since[:, column] + SLACK_NS, side="right")
        high = np.searchsorted(start, met.arrival[:, column], side="right")
        total = np.concatenate([[0], np.cumsum(bound[nodes, column])])
        late_launches[:, column] = np.maximum(total[high] - total[low], 0)
        local = np.where(alignment.semantics[nodes] == 0, features.duration[nodes, column], 0.0)
        work = np.concatenate([[0.0], np.cumsum(local)])
        busy[:, column] = np.maximum(work[high] - work[low], 0.0)
        first = np.searchsorted(waits[column], np.maximum(last_launch, since)[:, column])
        end = np.searchsorted(waits[column], launch[:, column], side="right")
        synced[:, column] = end > first
    measurable = met.member & known & last_known & ~entry
    synced &= measurable
    host = measurable & (late_launches > 0) & ~synced
    other = np.where(measurable & ~synced, np.maximum(launch - last_launch, 0.0), 0.0)
    return Anchors(
        host=host,
        synced=synced,
        entry=entry,
        launch=launch,
        stretch=np.where(host, other, met.elapsed),
        other=other,
        busy=np.where(met.member, np.minimum(busy, met.elapsed), 0.0),
    )


def idle_launch_delay_ns(features: Features, column: int) -> float:
    """Usual time from launch to start on an idle stream: the low tenth of the rank's delays."""
    launched = features.launched[:, column]
    if not launched.any():
        return 0.0
    delay = features.start[launched, column] - features.launch[launched, column]
    return float(min(np.quantile(np.maximum(delay, 0.0), 0.1), _LONGEST_IDLE_DELAY_NS))


def before_on_stream(features: Features, alignment: Alignment, column: int) -> NDArray[np.int64]:
    """Node that ran before each node on its stream of one rank, ``(N,)``; -1 if none did."""
    nodes = np.flatnonzero(features.present[:, column])
    order = nodes[np.lexsort((features.start[nodes, column], alignment.stream[nodes]))]
    same = alignment.stream[order][1:] == alignment.stream[order][:-1]
    before = np.full(features.present.shape[0], -1, np.int64)
    before[order[1:][same]] = order[:-1][same]
    return before


def launch_bound(features: Features, alignment: Alignment) -> Bool:
    """Work that started when it was launched and not when its stream was free, ``(N, R)``."""
    slack = SLACK_NS + 2 * features.resolution_ns
    ranks = features.present.shape[1]
    ready = features.launch + np.array([idle_launch_delay_ns(features, c) for c in range(ranks)])
    before = np.full(features.present.shape, -np.inf)
    for column in range(ranks):
        previous = before_on_stream(features, alignment, column)
        after = np.flatnonzero(previous >= 0)
        before[after, column] = features.end[previous[after], column]
    idle = features.start > before + slack
    return features.launched & idle & (features.start <= ready + slack)


def _host_waits(table: SpanTable, features: Features, alignment: Alignment) -> list[Float]:
    """Ends of the host's waits for the GPU, ascending, by rank (ns since the origin)."""
    shift = _clock_shift(table, features, alignment)
    call_end = table.end_ns - features.origin_ns
    waited = (table.kind == SpanKind.SYNC) & (
        table.duration_ns >= _BLOCKED_NS + features.resolution_ns
    )
    # a copy to pageable host memory blocks its caller until the copy is done
    back = np.array(["DtoH" in text for text in table.strings])[table.name]
    copies = np.flatnonzero((table.kind == SpanKind.MEMCPY) & back & (table.parent >= 0))
    calls = table.parent[copies]
    blocked = (table.kind[calls] == SpanKind.LAUNCH) & (
        table.end_ns[calls] >= table.end_ns[copies] - SLACK_NS
    )
    waited[calls[blocked]] = True
    ranks = table.rank
    return [
        np.sort(call_end[waited & (ranks == rank)].astype(np.float64)) - shift[column]
        for column, rank in enumerate(alignment.ranks.tolist())
    ]


def _clock_shift(table: SpanTable, features: Features, alignment: Alignment) -> Float:
    """What was taken off each rank's clock, ns ``(R,)``."""
    shift = np.zeros(len(alignment.ranks))
    for column in range(len(shift)):
        there = np.flatnonzero(features.present[:, column])
        if len(there):
            row = int(alignment.rows[there[0], column])
            measured = float(table.start_ns[row] - features.origin_ns)
            shift[column] = measured - float(features.start[there[0], column])
    return shift
