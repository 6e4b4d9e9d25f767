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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.compiled import njit
from kat_otel.per_string import PerString
from kat_otel.spans import SpanTable
from kat_otel.ttad import loops
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.features import Features
from kat_otel.ttad.loops import in_order, low_tenth, plain
from kat_otel.ttad.meetings import Meetings

__all__ = [
    "BLOCKED_NS",
    "SLACK_NS",
    "TO_HOST",
    "Anchors",
    "anchors",
    "arrivals",
    "before_on_stream",
    "idle_launch_delay_ns",
    "waits",
]

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

SLACK_NS = 4_000.0
"""Start within this of what was waited for: kernel-to-kernel gap plus launch jitter."""

BLOCKED_NS = 20_000.0
"""A synchronisation call of this length has waited; shorter ones found the work done."""

_LONGEST_IDLE_DELAY_NS = 30_000.0
"""Launch to start on an idle stream takes less than this."""

_LAUNCH, _SYNC, _MEMCPY = 4, 5, 7  # of SpanKind, as numbers for the loop


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
    wait, first_wait = _host_waits(table, features, alignment)
    host, synced, entry, launch, stretch, other, busy = arrivals(
        (features.present, features.launched),
        (features.start, features.end, features.duration, features.launch),
        (alignment.stream, plain(alignment.semantics)),
        (met.node, met.member, met.previous),
        (met.arrival, met.release, met.elapsed),
        (wait, first_wait),
        float(features.resolution_ns),
    )
    return Anchors(
        host=host,
        synced=synced,
        entry=entry,
        launch=launch,
        stretch=stretch,
        other=other,
        busy=busy,
    )


_FLAGS = "boolean[:, ::1]"
_TIMES = "float64[:, ::1]"


@njit(
    f"Tuple(({_FLAGS}, {_FLAGS}, {_FLAGS}, {_TIMES}, {_TIMES}, {_TIMES}, {_TIMES}))"
    f"(UniTuple({_FLAGS}, 2), UniTuple({_TIMES}, 4), Tuple((int32[::1], uint8[::1])),"
    f" Tuple((int64[::1], {_FLAGS}, int64[:, ::1])), UniTuple({_TIMES}, 3),"
    " Tuple((float64[::1], int64[::1])), float64)",
    uses=(loops,),
)
def arrivals(
    flags: Any, times: Any, nodes: Any, who: Any, when: Any, waits: Any, resolution: float
) -> Any:
    """The arrays of :class:`Anchors`, one rank after the other.

    Args:
        flags: present and launched of all nodes.
        times: start, end, duration and launch of all nodes.
        nodes: stream and semantics of all nodes.
        who: node, member and previous of the meetings.
        when: arrival, release and elapsed of the meetings.
        waits: ends of the hosts' waits by rank, ascending, and where each rank's begin.
        resolution: of the clock, ns.
    """
    present, launched = flags
    start, end, duration, launch = times
    stream, semantics = nodes
    met_node, member, previous = who
    arrival, release, elapsed = when
    wait, first_wait = waits
    shape = member.shape
    host, synced = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    entry, launch_of = np.zeros(shape, np.bool_), np.zeros(shape)
    stretch, other, busy = elapsed.copy(), np.zeros(shape), np.zeros(shape)
    size = len(stream)
    own_start, own_end, ready = np.empty(size), np.empty(size), np.empty(size)
    has_launch, work = np.empty(size, np.bool_), np.empty(size)
    lane, delay = np.empty(size, np.int32), np.empty(size)
    for rank in range(shape[1]):
        count = delays = 0
        for node in range(size):
            if present[node, rank]:
                own_start[count], own_end[count] = start[node, rank], end[node, rank]
                has_launch[count], ready[count] = launched[node, rank], launch[node, rank]
                lane[count] = stream[node]
                work[count] = duration[node, rank] if semantics[node] == 0 else 0.0
                if launched[node, rank]:
                    delay[delays] = max(own_start[count] - ready[count], 0.0)
                    delays += 1
                count += 1
        usual = min(low_tenth(delay, delays), _LONGEST_IDLE_DELAY_NS) if delays else 0.0
        order = np.arange(count)
        bound = np.zeros(count, np.bool_)
        begin = 0
        for at in range(1, count + 1):  # what ran before on the same stream, stream by stream
            if at < count and lane[at] == lane[begin]:
                continue
            if not in_order(own_start, begin, at):
                order[begin:at] = begin + np.argsort(own_start[begin:at], kind="mergesort")
            before = -np.inf
            for k in range(begin, at):
                one = order[k]
                idle = own_start[one] > before + (SLACK_NS + 2 * resolution)
                soon = own_start[one] <= ready[one] + usual + (SLACK_NS + 2 * resolution)
                bound[one] = has_launch[one] and idle and soon
                before = own_end[one]
            begin = at
        if not in_order(own_start, 0, count):
            order = np.argsort(own_start[:count], kind="mergesort")
        else:
            order = np.arange(count)
        begun = own_start[:count][order]
        late, done = np.zeros(count + 1, np.int64), np.zeros(count + 1)
        for at in range(count):
            late[at + 1] = late[at] + bound[order[at]]
            done[at + 1] = done[at] + work[order[at]]
        waited = wait[first_wait[rank] : first_wait[rank + 1]]
        for one in range(shape[0]):
            if not member[one, rank]:
                continue
            launch_of[one, rank] = launch[met_node[one], rank]
            before_it = previous[one, rank]
            since = -np.inf if before_it < 0 else release[before_it, rank]
            low = int(np.searchsorted(begun, since + SLACK_NS, side="right"))
            high = int(np.searchsorted(begun, arrival[one, rank], side="right"))  # pyright: ignore[reportUnknownArgumentType]
            busy[one, rank] = min(max(done[high] - done[low], 0.0), elapsed[one, rank])
            if before_it < 0:
                entry[one, rank] = True
                continue
            last = met_node[before_it]
            if not (launched[met_node[one], rank] and launched[last, rank]):
                continue
            first = int(np.searchsorted(waited, max(launch[last, rank], since)))  # pyright: ignore[reportUnknownArgumentType]
            if np.searchsorted(waited, launch_of[one, rank], side="right") > first:
                synced[one, rank] = True
                continue
            other[one, rank] = max(launch_of[one, rank] - launch[last, rank], 0.0)
            if late[high] > late[low]:
                host[one, rank] = True
                stretch[one, rank] = other[one, rank]
    return host, synced, entry, launch_of, stretch, other, busy


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


def _host_waits(
    table: SpanTable, features: Features, alignment: Alignment
) -> tuple[Float, NDArray[np.int64]]:
    """Ends of the host's waits for the GPU by rank, ascending, and where each rank's begin."""
    rows, copies = waits(
        (plain(table.kind), plain(table.parent)),
        (plain(table.start_ns), plain(table.duration_ns)),
        int(BLOCKED_NS) + features.resolution_ns,
        int(SLACK_NS),
    )
    if len(copies):
        # a copy to pageable host memory blocks its caller until the copy is done
        copies = copies[TO_HOST.of(table.strings, table.name[copies]) != 0]
        rows = np.concatenate([rows, table.parent[copies]])
    if not len(rows):
        return np.empty(0), np.zeros(len(alignment.ranks) + 1, np.int64)
    column_of = {rank: at for at, rank in enumerate(alignment.ranks.tolist())}
    columns = np.array([column_of.get(r.rank, -1) for r in table.resources], np.int64)
    column = columns[table.resource[rows]]  # -1: no GPU work of it to wait for
    rows, column = rows[column >= 0], column[column >= 0]
    call_end = (_ends(table, rows) - features.origin_ns).astype(np.float64)
    order = np.lexsort((call_end, column))
    column = column[order]
    first = np.searchsorted(column, np.arange(len(alignment.ranks) + 1))
    return call_end[order] - features.shift[column], first


TO_HOST = PerString(lambda text: int("DtoH" in text))
"""Whether the name of a copy says that it goes to the host."""


def _ends(table: SpanTable, rows: NDArray[Any]) -> NDArray[np.int64]:
    return table.start_ns[rows] + table.duration_ns[rows]


@njit(
    "UniTuple(int64[::1], 2)"
    "(Tuple((uint8[::1], int32[::1])), UniTuple(int64[::1], 2), int64, int64)"
)
def waits(tree: Any, times: Any, least: int, slack: int) -> Any:
    """Rows of host waits at least so long, and of copies that their launch calls outlast."""
    kind, parent = tree
    start_ns, duration_ns = times
    waits = copies = 0
    for row in range(len(kind)):
        waits += kind[row] == _SYNC
        copies += kind[row] == _MEMCPY
    wait, copy = np.empty(waits, np.int64), np.empty(copies, np.int64)
    waits = copies = 0
    for row in range(len(kind) if len(wait) or len(copy) else 0):
        if kind[row] == _SYNC and duration_ns[row] >= least:
            wait[waits] = row
            waits += 1
        elif kind[row] == _MEMCPY and parent[row] >= 0 and kind[parent[row]] == _LAUNCH:
            call = parent[row]
            if start_ns[call] + duration_ns[call] >= start_ns[row] + duration_ns[row] - slack:
                copy[copies] = row
                copies += 1
    return wait[:waits], copy[:copies]
