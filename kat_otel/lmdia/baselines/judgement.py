"""What a method says of steps, kept so that its threshold can be chosen afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from kat_otel.lmdia.baselines.view import StepView, view
from kat_otel.lmdia.scoring.alarm import Alarm
from kat_otel.spans import SpanTable

__all__ = ["Baseline", "Follower", "Scored", "ScoredStep", "alarms"]

_TOP: Final = 3
_GAP: Final = 1
"""Steps without an alarm that an alarm lasts over."""


class ScoredStep(msgspec.Struct, frozen=True, array_like=True):
    """One step.

    Attributes:
        step: its number.
        ranks: those with the highest scores, the highest first.
        scores: theirs.
        middle: median of all ranks' scores: as high as the others, and everybody is concerned.
    """

    step: int
    ranks: tuple[int, ...]
    scores: tuple[float, ...]
    middle: float


Scored = tuple[ScoredStep, ...]


class Baseline(Protocol):
    """A method on one instance: fed step after step, it remembers what it needs."""

    def see(self, step: StepView) -> NDArray[np.float64] | None:
        """Returns a score for each rank ``(R,)``, higher is worse; None: nothing to say yet."""
        ...


class Follower:
    """A method that follows one case.

    Args:
        baseline: the method.
    """

    def __init__(self, baseline: Baseline) -> None:
        self._baseline = baseline
        self._steps: list[ScoredStep] = []

    def see(self, table: SpanTable) -> None:
        """Looks at the next step."""
        seen = view(table)
        scores = None if seen is None else self._baseline.see(seen)
        if seen is None or scores is None:
            return
        order = np.argsort(-scores, kind="stable")[:_TOP]
        self._steps.append(
            ScoredStep(
                step=int(table.step[0]),
                ranks=tuple(int(r) for r in seen.ranks[order]),
                scores=tuple(round(float(s), 4) for s in scores[order]),
                middle=round(float(np.median(scores)), 4),
            )
        )

    def scored(self) -> Scored:
        """Returns what it scored."""
        return tuple(self._steps)


def alarms(scored: Sequence[ScoredStep], threshold: float, numbers: Sequence[int]) -> list[Alarm]:
    """Returns the alarms of a method at a threshold: runs of steps above it, as one each.

    A run names the ranks that are above it in most of its steps; nobody if half of all ranks are.

    Args:
        scored: by a method.
        threshold: above which it alarms.
        numbers: of all steps of the case, in order.
    """
    place = {number: at for at, number in enumerate(numbers)}
    above = [s for s in scored if s.scores and s.scores[0] > threshold]
    return [_alarm(run, threshold) for run in _runs(above, lambda s: place[s.step])]


def _runs(
    steps: Sequence[ScoredStep], place: Callable[[ScoredStep], int]
) -> Iterator[list[ScoredStep]]:
    run: list[ScoredStep] = []
    for step in steps:
        if run and place(step) - place(run[-1]) > 1 + _GAP:
            yield run
            run = []
        run.append(step)
    if run:
        yield run


def _alarm(run: Sequence[ScoredStep], threshold: float) -> Alarm:
    everybody = sum(s.middle > threshold for s in run) * 2 > len(run)
    named = Counter(
        rank
        for s in run
        for rank, score in zip(s.ranks, s.scores, strict=True)
        if score > threshold
    )
    ranks = [] if everybody else [r for r, n in named.most_common() if 2 * n > len(run)]
    if not ranks and not everybody:
        ranks = [named.most_common(1)[0][0]]
    return Alarm(
        steps=tuple(s.step for s in run),
        ranks=tuple(ranks),
        share=max(s.scores[0] for s in run),
    )
