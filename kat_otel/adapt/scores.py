"""How right answers are: causes, culprits, citations, abstention, and what the check refuses."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from kat_otel.analyzer.answer_schema import LEVELS, Answer
from kat_otel.analyzer.knowledge import UNEXPLAINED

__all__ = ["Said", "Scores", "scores"]


@dataclass(frozen=True, slots=True)
class Said:
    """One answer beside the right one.

    Attributes:
        truth: the right answer.
        answer: what was said; None if it could not be read.
        problems: reasons for which the check refuses it; empty if it is grounded.
        instead: the cause that stands where it is refused: the embedded rules'.
        seconds: that it took.
        prompt, completion: tokens.
    """

    truth: Answer
    answer: Answer | None
    problems: tuple[str, ...] = ()
    instead: str = UNEXPLAINED
    seconds: float = 0.0
    prompt: int = 0
    completion: int = 0

    @property
    def cause(self) -> str:
        """The cause that was said; ``""`` if none could be read."""
        return self.answer.root_cause if self.answer else ""

    @property
    def right(self) -> bool:
        """Whether the cause is the true one."""
        return self.cause == self.truth.root_cause


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares of 1, over all answers of a split.

    Attributes:
        count: answers.
        cause: right cause.
        cause_f1: mean over the true causes of their F1, so that rare ones count as much.
        component, culprits: right component; exactly the right ranks.
        cited_precision, cited_recall: of the facts that the chain cites, where a cause is true.
        chain: links of the true chain that are told, in its order, by a fact of each.
        abstained_precision, abstained_recall: of naming no cause.
        covered, risk: answers of high confidence, and the share of them that is wrong; risk is None
            if there is none.
        grounded: answers that the check takes at the first try.
        after_check: right cause where the embedded rules stand in for what is refused.
        seconds: median of one answer; prompt, completion: mean tokens.
    """

    count: int
    cause: float
    cause_f1: float
    component: float
    culprits: float
    cited_precision: float
    cited_recall: float
    chain: float
    abstained_precision: float
    abstained_recall: float
    covered: float
    risk: float | None
    grounded: float
    after_check: float
    seconds: float
    prompt: float
    completion: float


_SURE: Final = max(LEVELS.values())


def scores(said: Sequence[Said]) -> Scores:
    """Returns the scores of answers.

    Raises:
        ValueError: there are none.
    """
    if not said:
        raise ValueError("no answers: nothing to score")
    named = [one for one in said if not one.truth.abstained]
    quiet = [one for one in said if one.truth.abstained]
    abstaining = [one for one in said if one.answer is not None and one.answer.abstained]
    both = sum(one.truth.abstained for one in abstaining)
    sure = [one for one in said if one.answer and LEVELS[one.answer.confidence] == _SURE]
    cited = [(_cited(one.answer), _cited(one.truth)) for one in named]
    hits = sum(len(mine & true) for mine, true in cited)
    return Scores(
        count=len(said),
        cause=_share(one.right for one in said),
        cause_f1=_macro_f1(said),
        component=_share(
            one.answer is not None and one.answer.component == one.truth.component for one in said
        ),
        culprits=_share(
            one.answer is not None and set(one.answer.culprit_ranks) == set(one.truth.culprit_ranks)
            for one in said
        ),
        cited_precision=_ratio(hits, sum(len(mine) for mine, _ in cited)),
        cited_recall=_ratio(hits, sum(len(true) for _, true in cited)),
        chain=_share(link for one in named for link in _links(one)),
        abstained_precision=_ratio(both, len(abstaining)),
        abstained_recall=_ratio(both, len(quiet)),
        covered=len(sure) / len(said),
        risk=1 - _share(one.right for one in sure) if sure else None,
        grounded=_share(one.answer is not None and not one.problems for one in said),
        after_check=_share(
            (one.cause if one.answer and not one.problems else one.instead) == one.truth.root_cause
            for one in said
        ),
        seconds=statistics.median(one.seconds for one in said),
        prompt=statistics.fmean(one.prompt for one in said),
        completion=statistics.fmean(one.completion for one in said),
    )


def _macro_f1(said: Sequence[Said]) -> float:
    found: list[float] = []
    for cause in {one.truth.root_cause for one in said}:
        both = sum(one.right for one in said if one.truth.root_cause == cause)
        claimed = sum(one.cause == cause for one in said)
        true = sum(one.truth.root_cause == cause for one in said)
        found.append(2 * both / (claimed + true))
    return statistics.fmean(found)


def _links(one: Said) -> list[bool]:
    """Says of each link of the true chain whether it is told, after the one before it."""
    mine = iter(one.answer.causal_chain if one.answer else ())
    found: list[bool] = []
    for link in one.truth.causal_chain:
        true, left = set(link.evidence_ids), list(mine)
        at = next((n for n, said in enumerate(left) if true & set(said.evidence_ids)), None)
        mine = iter(left if at is None else left[at + 1 :])
        found.append(at is not None)
    return found


def _cited(answer: Answer | None) -> set[str]:
    return {name for link in answer.causal_chain for name in link.evidence_ids} if answer else set()


def _share(values: Iterable[bool]) -> float:
    whole = list(values)
    return _ratio(sum(whole), len(whole))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
