"""Where the time of each rank's step goes: compute, wait, transfer, host."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from kat_otel.kernels import Semantics, classify
from kat_otel.spans import SpanKind, SpanTable

__all__ = ["PARTS", "Part", "step_parts"]

Part = Literal["compute", "wait", "transfer", "host"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

_WORKER_STEP: Final = SpanKind.WORKER_STEP.value
_COLLECTIVE: Final = SpanKind.COLLECTIVE.value

_Times = NDArray[np.int64]


class _Spans(NamedTuple):
    start: _Times
    end: _Times

    def within(self, begin: int, end: int) -> _Spans:
        """What of them lies in a time."""
        start, until = np.maximum(self.start, begin), np.minimum(self.end, end)
        some = until > start
        return _Spans(start[some], until[some])

    def and_those(self, other: _Spans) -> _Spans:
        return _Spans(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))

    def covered(self) -> int:
        """Time in which at least one of them runs, ns."""
        if not len(self.start):
            return 0
        order = np.argsort(self.start)
        start, end = self.start[order], np.maximum.accumulate(self.end[order])
        idle = np.maximum(start[1:] - end[:-1], 0).sum()
        return int(end[-1] - start[0] - idle)


def step_parts(table: SpanTable) -> dict[int, dict[Part, int]]:
    """Splits the time of each rank's worker step, ns; the four parts add up to it.

    ``compute``: kernels and copies run. ``wait``: none does, and a collective with barrier
    semantics waits for its last rank. ``transfer``: none does, and a collective runs that has all
    its ranks, or is no barrier. ``host``: the GPU has nothing to do.

    Collectives are matched by their order, and clocks are taken as they are: the caller knows
    whether they agree.

    Args:
        table: one step.

    Returns:
        The parts by rank; nothing if the ranks took part in unequally many collectives or sent no
        spans of GPU work (a digest), as then nobody's waiting is known.
    """
    table, meaning = classify(table)
    kind, rank = table.kind, table.rank
    steps = np.flatnonzero((kind == _WORKER_STEP) & (rank >= 0))
    ranks: list[int] = rank[steps].tolist()
    gpu = kind >= SpanKind.KERNEL.value
    if not gpu.any() or len(set(ranks)) < len(ranks):
        return {}
    spans = _Spans(table.start_ns, table.end_ns)
    barrier = {
        one: _taken(spans, _ordered(table, gpu & (meaning == Semantics.BARRIER) & (rank == one)))
        for one in ranks
    }
    counts = {len(own.start) for own in barrier.values()}
    if len(counts) != 1:
        return {}
    last = np.max([own.start for own in barrier.values()], axis=0)
    found: dict[int, dict[Part, int]] = {}
    for row, one in zip(steps.tolist(), ranks, strict=True):
        begin, end = int(spans.start[row]), int(spans.end[row])
        own = gpu & (rank == one)
        work = _taken(spans, np.flatnonzero(own & (kind != _COLLECTIVE))).within(begin, end)
        every = _taken(spans, np.flatnonzero(own)).within(begin, end)
        waiting = _Spans(barrier[one].start, np.minimum(last, barrier[one].end)).within(begin, end)
        compute, busy = work.covered(), every.covered()
        wait = work.and_those(waiting).covered() - compute
        found[one] = {
            "compute": compute,
            "wait": wait,
            "transfer": busy - compute - wait,
            "host": end - begin - busy,
        }
    return found


def _taken(spans: _Spans, rows: NDArray[np.int64]) -> _Spans:
    return _Spans(spans.start[rows], spans.end[rows])


def _ordered(table: SpanTable, which: NDArray[np.bool_]) -> NDArray[np.int64]:
    rows = np.flatnonzero(which)
    return rows[np.argsort(table.start_ns[rows], kind="stable")]
