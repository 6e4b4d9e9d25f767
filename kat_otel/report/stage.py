"""One step as TTAD saw it: aligned, on one clock, with its collectives and who was late.

The picture must not contradict the verdict, so it is made from the same alignment, clock
offsets, meetings and expected arrivals; this is the only place that asks TTAD for them.
"""

from __future__ import annotations

from dataclasses import dataclass

import array_api_compat.numpy as xp
import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import Semantics, classify
from kat_otel.spans import SpanTable
from kat_otel.ttad import Settings
from kat_otel.ttad.align import Alignment, align
from kat_otel.ttad.anchors import anchors
from kat_otel.ttad.features import Features, features, shift_clocks
from kat_otel.ttad.lateness import lateness
from kat_otel.ttad.meetings import clock_offsets, meetings

__all__ = ["Arrivals", "Stage", "stage_of"]

Int64 = NDArray[np.int64]
Float = NDArray[np.float64]

_HUGE = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Arrivals:
    """``m`` collectives, in the order of their release, by ``r`` ranks.

    Attributes:
        names: kernel family of every collective, ``m``.
        ranks: ranks in ascending order, int64 ``(r,)``.
        row: row in the stage's table, -1 where the rank takes no part, int64 ``(m, r)``.
        start, end: Unix ns on the common clock, meaningful where ``row >= 0``, int64 ``(m, r)``.
        late: arrival against the peers, both since their last common release, ns, NaN where
            absent; negative for ranks that came early and wait. All NaN without a common
            clock. float64 ``(m, r)``.
    """

    names: tuple[str, ...]
    ranks: Int64
    row: Int64
    start: Int64
    end: Int64
    late: Float

    def __len__(self) -> int:
        return len(self.names)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Whether the rank takes part, bool ``(m, r)``."""
        return self.row >= 0

    @property
    def last(self) -> Int64:
        """Arrival of the last rank at every collective, Unix ns, int64 ``(m,)``."""
        return np.where(self.present, self.start, -_HUGE).max(axis=1, initial=-_HUGE)

    def waits(self) -> Int64:
        """Returns how long each rank waited for the last one, ns, 0 where absent, ``(m, r)``."""
        waited = np.minimum(self.last[:, None], self.end) - self.start
        return np.where(self.present, np.maximum(waited, 0), 0)

    def excess(self) -> Int64:
        """Returns how much longer each rank's kernel took than the shortest, ns, ``(m, r)``.

        Without a common clock this stands for the waiting: the last rank to arrive does not
        wait, so its kernel is the shortest.
        """
        duration = np.where(self.present, self.end - self.start, _HUGE)
        shortest = duration.min(axis=1, keepdims=True, initial=_HUGE)
        return np.where(self.present, duration - shortest, 0)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step, on one clock.

    Attributes:
        step: its number; None if the source knows no steps.
        table: its spans, with collectives classified.
        ranks: ranks with GPU work, ascending, int64.
        shift: what was taken from each rank's clock, ns, indexed by rank, int64. One spare
            place at the end is for rank -1 of sources that never said.
        origin, end: begin and end of the GPU work, Unix ns.
        found: collectives matched across ranks.
        waits: how long each rank waited in each, ns, int64 ``(m, r)``.
        comparable: whether positions of different ranks may be compared.
    """

    step: int | None
    table: SpanTable
    ranks: Int64
    shift: Int64
    origin: int
    end: int
    found: Arrivals
    waits: Int64
    comparable: bool


def stage_of(table: SpanTable, step: int | None) -> Stage | None:
    """Prepares one step of ``table``, or all of it if ``step`` is None.

    Returns:
        The stage, or None if there is no GPU work in the step.
    """
    mine = table if step is None else table.take(table.step == step)
    mine, meaning = classify(mine)
    if not mine.on_gpu.any():
        return None
    alignment = align(mine, meaning)
    measured = features(mine, alignment)
    offset, clock = clock_offsets(mine, measured, alignment)
    ranks = alignment.ranks.astype(np.int64)
    comparable = clock.state != "unaligned" or len(ranks) == 1
    shift = np.zeros(max(0, int(ranks.max())) + 2, dtype=np.int64)
    on_gpu = np.flatnonzero(mine.on_gpu)
    if comparable:
        shift[ranks] = np.round(offset).astype(np.int64)
    else:  # every rank begins at its own first span
        first = np.full(len(shift), _HUGE)
        np.minimum.at(first, mine.rank[on_gpu], mine.start_ns[on_gpu])
        shift[ranks] = first[ranks] - first[ranks].min()
    found = _arrivals(mine, alignment, shift_clocks(measured, offset), shift, comparable)
    start = mine.start_ns[on_gpu] - shift[mine.rank[on_gpu]]
    origin = int(start.min())
    return Stage(
        step=step,
        table=mine,
        ranks=ranks,
        shift=shift,
        origin=origin,
        end=max(origin + 1, int((start + mine.duration_ns[on_gpu]).max())),
        found=found,
        waits=found.waits() if comparable else found.excess(),
        comparable=comparable,
    )


def _arrivals(
    table: SpanTable, alignment: Alignment, measured: Features, shift: Int64, comparable: bool
) -> Arrivals:
    ranks = alignment.ranks.astype(np.int64)
    if comparable:
        met = meetings(table, measured, alignment)
        bound = anchors(table, measured, alignment, met)
        judged = lateness(met, bound, alignment, measured, Settings(), xp=xp)
        node, member = met.node, met.member
        late = np.where(member, judged.excess, np.nan)
    else:
        node = np.flatnonzero(alignment.semantics != Semantics.NONE)
        node = node[alignment.present[node].sum(axis=1) > 1]
        member = alignment.present[node]
        late = np.full(member.shape, np.nan)
    row = np.where(member, alignment.rows[node], -1)
    start = np.where(member, table.start_ns[row] - shift[ranks], 0)
    end = np.where(member, table.end_ns[row] - shift[ranks], 0)
    names = tuple(alignment.families[int(code)] for code in alignment.family[node])
    return Arrivals(names, ranks, row.astype(np.int64), start, end, late)
