"""What a process of an evaluation does with a case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kat_otel.lmdia.baselines.registry import followers
from kat_otel.lmdia.dataset.collection import sources
from kat_otel.lmdia.dataset.plan import Case
from kat_otel.lmdia.dataset.play import play
from kat_otel.lmdia.evaluation.records import Record
from kat_otel.lmdia.evaluation.run import judge

__all__ = ["Work"]


@dataclass(frozen=True, slots=True)
class Work:
    """Judges cases; small enough to be sent to other processes.

    Attributes:
        traces: folder of real traces, or None.
        ablations: whether TTAD is run without each of its parts too.
        opponents: whether the other methods are run.
    """

    traces: Path | None
    ablations: bool
    opponents: bool

    def __call__(self, case: Case) -> Record:
        """Returns what was said of a case."""
        return judge(
            case,
            lambda one: play(one, sources(self.traces)),
            ablations=self.ablations,
            opponents=(lambda: dict(followers())) if self.opponents else None,
        )
