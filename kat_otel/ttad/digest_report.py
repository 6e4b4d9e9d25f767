"""Reports on steps that were judged by their digests; what steps have in common is made once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import UNKNOWN
from kat_otel.ttad.digest_steps import Groups
from kat_otel.ttad.settings import Settings
from kat_otel.ttad.summary import instance_among, source_among
from kat_otel.verdict import (
    Abstention,
    Clock,
    Coverage,
    Incident,
    Instance,
    Report,
    Source,
    Step,
)

__all__ = ["DigestReports", "Findings"]

Int64 = NDArray[np.int64]

_ALWAYS = "judged by digests: no single kernels, no walk back, clocks were not compared"
_CLOCK = Clock(state="unaligned", max_offset_ns=0)  # only durations were compared


@dataclass(frozen=True, slots=True)
class Findings:
    """What judging has found in some steps, by their place.

    Attributes:
        groups: their digests.
        incidents: of each step.
        length: of the steps as judged, float64 ``(S,)`` ns; 0 of those that were not.
        learning: of groups that have no history yet, how many steps they know.
    """

    groups: Groups
    incidents: list[list[Incident]]
    length: NDArray[np.float64]
    learning: defaultdict[int, list[int]]

    @staticmethod
    def of(groups: Groups) -> Findings:
        """Returns that nothing was found yet."""
        steps = len(groups.digests)
        return Findings(groups, [[] for _ in range(steps)], np.zeros(steps), defaultdict(list))


class DigestReports:
    """Makes the reports of some steps.

    Args:
        groups: their digests.
        settings: thresholds.

    Attributes:
        begin_ns: when each step began, Unix ns; 0 of a step without spans.
    """

    def __init__(self, groups: Groups, settings: Settings) -> None:
        read = groups.digests
        self._groups, self._read, self._settings = groups, read, settings
        self._who: dict[bytes, tuple[Instance | None, Source]] = {}
        self._ranks: dict[bytes, list[int]] = {}
        table, bounds = read.table, read.bounds
        self._bounds: list[int] = bounds.tolist()
        empty = bounds[1:] == bounds[:-1]
        self.begin_ns: list[int] = _least(table.start_ns, bounds, empty)
        ends = _least(-table.end_ns, bounds, empty)
        self._duration = [-end - begin for end, begin in zip(ends, self.begin_ns, strict=True)]
        there = read.there
        edges = np.append(0, np.cumsum(there))
        self._edges: list[int] = edges.tolist()
        self._kernels = _sums(read.headers["kernels"], edges)
        self._dropped = _sums(read.headers["dropped"], edges)
        merged = np.zeros(len(read), np.int64)
        np.maximum.at(merged, read.step, read.headers["merged"].astype(np.int64))
        self._merged: list[int] = merged.tolist()
        self._wanted: list[int] = read.wanted.tolist()
        self._missing: list[bool] = read.missing(settings.min_aligned).tolist()
        self._of_step: list[int] = groups.of_step.tolist()

    def of(self, step: int, incidents: list[Incident], learning: Sequence[int]) -> Report:
        """Returns the report of a step.

        Args:
            step: its place.
            incidents: that it touched or resolved.
            learning: see :class:`Findings`.
        """
        begin, end = self._bounds[step : step + 2]
        kernels = self._kernels[step]
        instance, source = self._from(begin, end)
        abstained = self._abstention(step) if self._missing[step] else None
        aligned = 0 if abstained else kernels
        return Report(
            instance=instance,
            source=source,
            coverage=Coverage(
                spans=end - begin,
                kernels=kernels,
                aligned=aligned,
                unmatched=kernels - aligned,
                notes=self._notes(step, learning),
            ),
            steps=[
                Step(
                    step=int(self._read.table.step[begin]) if end > begin else UNKNOWN,
                    start_unix_nano=self.begin_ns[step],
                    duration_ns=self._duration[step],
                    ranks=self._ranks_of(step),
                )
            ],
            incidents=incidents,
            abstained=abstained,
        )

    def _from(self, begin: int, end: int) -> tuple[Instance | None, Source]:
        table = self._read.table
        used = table.resource[begin:end]
        key = used.tobytes()
        known = self._who.get(key)
        if known is None:
            seen: list[int] = np.unique(used).tolist()
            mine = [table.resources[at] for at in seen]
            known = self._who[key] = instance_among(mine), source_among(mine, _CLOCK)
        return known

    def _ranks_of(self, step: int) -> list[int]:
        ranks = self._read.rank[self._edges[step] : self._edges[step + 1]]
        key = ranks.tobytes()
        known = self._ranks.get(key)
        if known is None:
            known = self._ranks[key] = np.sort(ranks).tolist()
        return known

    def _notes(self, step: int, learning: Sequence[int]) -> list[str]:
        notes = [_ALWAYS]
        broken = self._read.broken.get(step, ())
        notes += [f"a digest could not be read, {text}" for text in broken[:4]]
        if self._dropped[step]:
            notes.append(
                f"the workers dropped {self._dropped[step]:,} spans: their digests lack them"
            )
        if self._merged[step] > 1:
            notes.append(
                f"too many collectives for a digest: {self._merged[step]} at a time were judged "
                "as one"
            )
        if self._of_step[step] > 1:
            notes.append(
                f"the ranks ran {self._of_step[step]} different sequences of collectives; they "
                "were compared within each only"
            )
        alone = self._groups.alone.get(step)
        if alone:
            notes.append(f"{len(alone)} rank(s) have no peer to be compared with: {alone[:8]}")
        there, wanted = self._edges[step + 1] - self._edges[step], self._wanted[step]
        if 0 < there < wanted:
            notes.append(
                f"{wanted - there} of {wanted} ranks sent no digest: a culprit among them cannot "
                "be named"
            )
        notes += [
            f"{known} of {self._settings.min_history} steps that tell what is usual: until then "
            "only what stands out for that long is found"
            for known in learning
        ]
        return notes

    def _abstention(self, step: int) -> Abstention:
        there = self._edges[step + 1] - self._edges[step]
        return Abstention(
            reason="digests_missing",
            detail=f"{there} of {self._wanted[step]} ranks sent a digest that can be read (at "
            f"least {100 * self._settings.min_aligned:.0f} % are needed)",
        )


def _least(values: Int64, bounds: Int64, empty: NDArray[np.bool_]) -> list[int]:
    """Returns the least value of each step; 0 of those without spans."""
    if not len(values):
        return [0] * len(empty)
    first = np.minimum(bounds[:-1], len(values) - 1)
    least: list[int] = np.where(empty, 0, np.minimum.reduceat(values, first)).tolist()
    return least


def _sums(values: NDArray[Any], edges: Int64) -> list[int]:
    """Returns the sum of each stretch between two edges."""
    sums: list[int] = np.diff(np.append(0, np.cumsum(values, dtype=np.int64))[edges]).tolist()
    return sums
