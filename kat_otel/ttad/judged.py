"""Everything measured and judged of one step: what suspects and incidents are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

from kat_otel.spans import SpanTable
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.anchors import Anchors
from kat_otel.ttad.durations import Durations
from kat_otel.ttad.features import Features
from kat_otel.ttad.lateness import Lateness
from kat_otel.ttad.meetings import Meetings

__all__ = ["Judged"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One step: its spans, their alignment, and the deviations found in them."""

    table: SpanTable
    step: int
    alignment: Alignment
    features: Features
    meetings: Meetings
    anchors: Anchors
    lateness: Lateness
    durations: Durations

    @property
    def length_ns(self) -> float:
        """Time from the first to the last event of the rank that took longest."""
        return self.features.longest_ns

    def ranks(self, columns: list[int]) -> list[int]:
        """Returns the rank numbers of columns."""
        return [int(self.alignment.ranks[c]) for c in columns]

    def family(self, node: int) -> str:
        """Returns the kernel family of a node."""
        return self.alignment.families[int(self.alignment.family[node])]
