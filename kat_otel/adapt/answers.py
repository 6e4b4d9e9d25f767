"""The right answer to a case, in the form in which a model is asked: names and ids, no sentences.

Labels first and evidence by id: that is what a small model learned on seen wording, where prose
before labels stayed below half (measured before this project's first release).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from kat_otel.adapt.cases import SIGNS, Case
from kat_otel.adapt.tasks import Form
from kat_otel.analyzer.answer_schema import Answer, Level, Link, Rival
from kat_otel.analyzer.knowledge import UNEXPLAINED
from kat_otel.analyzer.pack import Pack

__all__ = ["UnanswerableError", "true_answer"]

_IDS: Final = 4
_RIVALS: Final = 2
_ACTIONS: Final = 2
_MECHANISM: Final = (
    "walk_launch",
    "walk_kernels",
    "walk_copies",
    "kernel_time",
    "launch_gap",
    "slow_transfer",
    "copy_time",
)
_EFFECTS: Final = (("arrival_excess",), ("wait",))
_CERTAIN: Final[dict[Form, Level]] = {
    "alone": "low",
    "quiet": "low",
    "torn": "low",
    "confounded": "medium",
    "shown": "high",
}


class UnanswerableError(ValueError):
    """The pack does not offer the true cause, or nothing in it that speaks for it."""


def true_answer(case: Case, pack: Pack) -> Answer:
    """Returns the answer that is right for a case.

    The chain is the simulator's own: the sign of the part that was made sick, what it does to the
    work, who arrives late, who waits.

    Raises:
        UnanswerableError: an answer of the schema could not be right.
    """
    truth = case.task.truth
    if pack.why_not:
        raise UnanswerableError(f"nothing is asked: {pack.why_not}")
    cause = pack.cause(truth)
    if cause is None:
        raise UnanswerableError(f"{truth} does not come in question")
    if case.task.form == "confounded" and not _ids(case, pack, SIGNS[case.task.shown[1]]):
        raise UnanswerableError("the bystander's sign is not told: no hard negative")
    rivals = _rivals(case, pack)
    if truth == UNEXPLAINED:
        return Answer(
            root_cause=UNEXPLAINED,
            component=cause.component,
            culprit_ranks=[],
            causal_chain=[],
            hypotheses=rivals,
            actions=_actions(pack, cause.actions),
            confidence="low",
            abstained=True,
        )
    spoken = list(pack.speaks[truth])
    told = case.task.form in {"shown", "confounded"}
    signs = SIGNS[case.task.shown[0]] if told else frozenset[str]()
    own = [i for i in _ids(case, pack, signs) if i in spoken] or spoken
    chain = [own[:_IDS]]
    for signals in (_MECHANISM, *_EFFECTS):
        more = [i for i in _ids(case, pack, signals) if i not in {x for ids in chain for x in ids}]
        if more:
            chain.append(more[:_IDS])
    return Answer(
        root_cause=truth,
        component=cause.component,
        culprit_ranks=[rank for rank in case.ranks if rank in pack.ranks],
        causal_chain=[Link(evidence_ids=ids) for ids in chain[:_IDS]],
        hypotheses=rivals,
        actions=_actions(pack, cause.actions),
        confidence=_CERTAIN[case.task.form],
        abstained=False,
    )


def _ids(case: Case, pack: Pack, signals: Iterable[str]) -> list[str]:
    """Returns the facts of some signals, in the order of the pack."""
    wanted = set(signals)
    sources = {fact.id for fact in case.incident.evidence if fact.signal in wanted}
    return [fact.id for fact in pack.facts if fact.source in sources]


def _rivals(case: Case, pack: Pack) -> list[Rival]:
    """Returns the causes that were weighed and not named, those with a sign of their own first."""
    signs = [
        i for sign in case.task.shown if sign != "healthy" for i in _ids(case, pack, SIGNS[sign])
    ]
    others = [c.id for c in pack.causes if c.id not in {case.task.truth, UNEXPLAINED}]
    others.sort(key=lambda name: -len(set(signs) & set(pack.speaks[name])))
    return [
        Rival(root_cause=name, evidence_for=list(pack.speaks[name][:_IDS]))
        for name in others[:_RIVALS]
    ]


def _actions(pack: Pack, wanted: Sequence[str]) -> list[str]:
    return [name for name in pack.actions if pack.action(name) in wanted][:_ACTIONS]
