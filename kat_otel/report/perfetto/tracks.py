"""Tracks of a trace: the incidents, then a group per rank with its host threads and streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kat_otel.report.perfetto import packets
from kat_otel.report.perfetto.lanes import MOST_LANES
from kat_otel.report.sentences import clock_text
from kat_otel.spans import Resource, SpanKind, SpanTable
from kat_otel.verdict import Report

__all__ = ["Tracks", "tracks_of"]

Int64 = NDArray[np.int64]

_INCIDENTS = 1
"""Uuid of the group of incidents; theirs follow."""
_RANKS = 1_000
_SIDES = ("steps", "host thread", "stream")


@dataclass(frozen=True, slots=True)
class Tracks:
    """Which track every span is on.

    Attributes:
        report: the verdict.
        comparable: whether the ranks' clocks could be aligned.
        incidents: how many get a track.
        resources: of the ranks, for their descriptions.
        of_row: number of each span's track, from 0, int64 ``(n,)``.
        rank, side, number: of every track, int64 ``(t,)``.
        taken: lanes that are used, as ``track * MOST_LANES + lane``.
    """

    report: Report
    comparable: bool
    incidents: int
    resources: tuple[Resource, ...]
    of_row: Int64
    rank: Int64
    side: Int64
    number: Int64
    taken: set[int]

    def uuids(self, lane: Int64) -> Int64:
        """Returns the track of every span, given its lane; remembers which are used."""
        place = self.of_row * MOST_LANES + lane
        self.taken.update(np.unique(place).tolist())
        return place + self._first

    def incident(self, number: int) -> int:
        """Returns the track of an incident, counted from 0."""
        return _INCIDENTS + 1 + number

    @property
    def _ranks(self) -> list[int]:
        return np.unique(self.rank).tolist()

    @property
    def _first(self) -> int:
        return _RANKS + len(self._ranks)

    def packets(self) -> Iterator[bytes]:
        """Yields the packets that name and order them."""
        yield packets.track(0, "", description="")
        report = self.report
        clock = clock_text(report.source) if self.comparable else "not aligned"
        count = min(len(report.incidents), self.incidents)
        name = "Incidents" if count else "No incident" if report.abstained is None else "No verdict"
        about = f"KAT-OTel. Clocks of the ranks: {clock}."
        yield packets.track(_INCIDENTS, name, description=about)
        for number in range(count):
            yield packets.track(
                self.incident(number),
                f"incident {number + 1}",
                parent=_INCIDENTS,
                place=number,
            )
        ranks = self._ranks
        width = len(str(max(ranks, default=0)))
        for place, rank in enumerate(ranks):
            # with leading zeros: some readers order these by their names
            said = f"rank {rank:0{width}d}" if rank >= 0 else "no rank"
            yield packets.track(
                _RANKS + place,
                said + self._role(rank),
                place=place + 1,
                description=self._about(rank),
            )
        parent = {rank: _RANKS + place for place, rank in enumerate(ranks)}
        for place in sorted(self.taken):
            track = place // MOST_LANES
            # lanes of one track have one name: Perfetto shows them as one
            yield packets.track(
                self._first + place,
                self._name(track),
                parent=parent[int(self.rank[track])],
                place=track,
            )

    def _role(self, rank: int) -> str:
        incidents = self.report.active or self.report.incidents
        if any(rank in incident.culprit.ranks for incident in incidents):
            return " (culprit)"
        return " (waits)" if any(rank in incident.victims for incident in incidents) else ""

    def _about(self, rank: int) -> str:
        found = next((r for r in self.resources if r.rank == rank), None)
        if found is None:
            return ""
        device = f"device {found.device}" if found.device >= 0 else ""
        parts = (device, found.hardware_id, found.host, found.source)
        return ", ".join(part for part in parts if part)

    def _name(self, track: int) -> str:
        side, number = _SIDES[int(self.side[track])], int(self.number[track])
        return side if side == "steps" or number < 0 else f"{side} {number}"


def tracks_of(report: Report, table: SpanTable, *, comparable: bool, incidents: int) -> Tracks:
    """Finds the tracks of ``table``: by rank, then steps, host threads, streams.

    Args:
        report: the verdict.
        table: the spans.
        comparable: whether the ranks' clocks could be aligned.
        incidents: how many of them get a track, below 999.
    """
    side = np.where(table.on_gpu, 2, 1).astype(np.int64)
    side[(table.kind == SpanKind.STEP) | (table.kind == SpanKind.WORKER_STEP)] = 0
    number = np.where(side == 2, table.stream.astype(np.int64), table.thread)
    number[side == 0] = -1
    keys = np.stack([table.rank.astype(np.int64), side, number])
    found, of_row = np.unique(keys, axis=1, return_inverse=True)
    return Tracks(
        report=report,
        comparable=comparable,
        incidents=incidents,
        resources=table.resources,
        of_row=of_row.reshape(-1).astype(np.int64),
        rank=found[0],
        side=found[1],
        number=found[2],
        taken=set(),
    )
