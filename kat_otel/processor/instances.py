"""How each instance goes, by its last steps: step time, pace, coverage, and who comes late."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest
from statistics import median
from typing import Final, NamedTuple

from kat_otel.live import LateRank, LiveInstance
from kat_otel.processor.assembled import AssembledStep
from kat_otel.spans import UNKNOWN
from kat_otel.verdict import Report

__all__ = ["Instances"]

_MOST: Final = 1_024
_WINDOW: Final = 128
"""Steps that the figures are of."""
_DRAWN: Final = 32
_WORST: Final = 8
_MISSING: Final = 16
_SMOOTHING: Final = 0.125
"""Weight of a step in a rank's lateness: what it was eight steps ago counts a third."""


class _Seen(NamedTuple):
    step: int
    begin_ns: int
    duration_ns: int
    judged: bool
    aligned: int
    kernels: int


@dataclass(slots=True)
class _Instance:
    window: deque[_Seen] = field(default_factory=lambda: deque[_Seen](maxlen=_WINDOW))
    late_ns: dict[int, float] = field(default_factory=dict[int, float])
    host_of: Mapping[int, str] = field(default_factory=dict[int, str])
    model: str | None = None
    engine: str | None = None
    ranks: int = 0
    world_size: int | None = None
    missing: tuple[int, ...] = ()
    abstained: str | None = None
    judged_ns: int = 0


class Instances:
    """Written by the judging thread, read by ports.

    Of 1,024 instances; beyond them the longest silent go.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._instances: OrderedDict[str, _Instance] = OrderedDict()

    def judged(
        self,
        step: AssembledStep,
        report: Report,
        duration_ns: int,
        lateness: Mapping[int, int],
        now_ns: int,
    ) -> None:
        """Takes a step that was just judged.

        Args:
            step: the step.
            report: what was found.
            duration_ns: how long it took.
            lateness: by rank, at its collectives, ns; empty if that cannot be told.
            now_ns: Unix ns.
        """
        coverage = report.coverage
        seen = _Seen(
            step.step,
            report.steps[0].start_unix_nano if report.steps else 0,
            duration_ns,
            report.abstained is None,
            coverage.aligned,
            coverage.kernels,
        )
        hosts = step.hosts
        with self._lock:
            known = self._instances.setdefault(step.instance, _Instance())
            self._instances.move_to_end(step.instance)
            if len(self._instances) > _MOST:
                self._instances.popitem(last=False)
            known.window.append(seen)
            known.host_of = hosts
            if report.instance is not None:
                known.model = report.instance.model or known.model
                known.engine = report.instance.engine or known.engine
            known.ranks = len(report.source.ranks)
            known.world_size = report.source.world_size or known.world_size
            known.missing = step.missing_ranks[:_MISSING]
            known.abstained = None if report.abstained is None else report.abstained.reason
            known.judged_ns = now_ns
            if lateness:
                before = known.late_ns
                known.late_ns = {
                    rank: before.get(rank, late) + _SMOOTHING * (late - before.get(rank, late))
                    for rank, late in lateness.items()
                }

    def forget(self, instance: str) -> None:
        """Drops an instance that is gone."""
        with self._lock:
            self._instances.pop(instance, None)

    def read(self) -> Iterator[LiveInstance]:
        """Yields all instances, the one judged last first."""
        with self._lock:
            names = list(reversed(self._instances))
        for name in names:
            with self._lock:
                known = self._instances.get(name)
                found = None if known is None else _live(name, known)
            if found is not None:
                yield found


def _live(name: str, known: _Instance) -> LiveInstance:
    window = known.window
    kernels = sum(seen.kernels for seen in window)
    worst = nlargest(_WORST, known.late_ns.items(), key=lambda item: item[1])
    return LiveInstance(
        instance=name,
        model=known.model,
        engine=known.engine,
        step=window[-1].step,
        step_ns=round(median(seen.duration_ns for seen in window)),
        last_steps_ns=[seen.duration_ns for seen in window][-_DRAWN:],
        steps_per_s=_pace(window),
        ranks=known.ranks,
        world_size=known.world_size,
        hosts=len(set(known.host_of.values()) - {""}),
        missing_ranks=list(known.missing),
        judged_share=sum(seen.judged for seen in window) / len(window),
        aligned_share=sum(seen.aligned for seen in window) / kernels if kernels else None,
        abstained=known.abstained,
        worst_ranks=[
            LateRank(rank=rank, host=known.host_of.get(rank, ""), late_ns=round(late))
            for rank, late in worst
            if late >= 1
        ],
        judged_unix_nano=known.judged_ns,
    )


def _pace(window: deque[_Seen]) -> float | None:
    """Returns steps a second by the workers' own clocks: what is replayed keeps its own pace."""
    told = [seen for seen in window if seen.begin_ns and seen.step != UNKNOWN]
    if len(told) < 2:
        return None
    first, last = told[0], told[-1]
    passed, steps = last.begin_ns - first.begin_ns, last.step - first.step
    # An engine that was started anew counts from the beginning again.
    return steps * 1e9 / passed if passed > 0 and steps > 0 else None
