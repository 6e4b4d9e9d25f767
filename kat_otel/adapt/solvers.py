"""Who answers: the embedded rules, two predictors that read nothing, and a model at an endpoint."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from kat_otel.adapt.examples import Example, pack_of
from kat_otel.adapt.scores import Said
from kat_otel.analyzer.answer_schema import Answer, Link, answer_schema
from kat_otel.analyzer.check import Problem, check, object_in
from kat_otel.analyzer.diagnose import diagnose
from kat_otel.analyzer.endpoint import Client
from kat_otel.analyzer.knowledge import UNEXPLAINED, embedded
from kat_otel.analyzer.pack import Pack
from kat_otel.analyzer.prompt import Message

__all__ = ["by_constant", "by_first", "by_model", "by_rules", "most_frequent", "shown_examples"]


def by_rules(example: Example) -> Said:
    """Answers as the embedded knowledge does; wordings are nothing to it, it reads signals."""
    pack = pack_of(example)
    begin = time.perf_counter()
    found = diagnose(example.incident)
    seconds = time.perf_counter() - begin
    own = {fact.source: fact.id for fact in pack.facts if fact.source}
    chain = [
        Link(evidence_ids=ids)
        for claim in found.causal_chain
        if (ids := [own[name] for name in claim.evidence_ids if name in own])
    ]
    answer = Answer(
        root_cause=found.root_cause,
        component=found.component,
        culprit_ranks=found.culprit_ranks,
        causal_chain=chain[:4],
        confidence=(
            "high" if found.confidence > 0.6 else "medium" if found.confidence > 0.3 else "low"
        ),
        abstained=found.abstained,
    )
    return Said(example.truth, answer, instead=found.root_cause, seconds=seconds)


def most_frequent(examples: Sequence[Example]) -> str:
    """Returns the cause that is most often right."""
    return Counter(example.truth.root_cause for example in examples).most_common(1)[0][0]


def by_constant(example: Example, cause: str) -> Said:
    """Always answers the same cause."""
    component = next(one.component for one in embedded().causes if one.id == cause)
    return _read_nothing(example, cause, component)


def by_first(example: Example) -> Said:
    """Answers the first cause of the pack: the detector's favourite."""
    first = pack_of(example).causes[0]
    return _read_nothing(example, first.id, first.component)


def shown_examples(examples: Sequence[Example], count: int) -> list[Message]:
    """Returns questions with their right answers, each of another cause, as turns of a chat."""
    turns: list[Message] = []
    seen: set[str] = set()
    for example in examples:
        if len(seen) == count:
            break
        if example.truth.root_cause not in seen:
            seen.add(example.truth.root_cause)
            turns += example.messages[1:]
    return turns


async def by_model(example: Example, client: Client, shown: Sequence[Message] = ()) -> Said:
    """Asks a model once, as the product asks: the same system message and schema.

    Args:
        example: what to ask.
        client: whom to ask.
        shown: turns between the system message and the question.

    Raises:
        EndpointError: it does not answer.
    """
    pack = pack_of(example)
    system, question, _ = example.messages
    begin = time.perf_counter()
    form = await client.form()
    schema = answer_schema(pack, prose=False)
    reply = await client.ask([system, *shown, question], schema, form)
    seconds = time.perf_counter() - begin
    found = object_in(reply.text)
    answer, problems = (
        (None, [found]) if isinstance(found, Problem) else (found, check(found, pack))
    )
    return Said(
        example.truth,
        answer,
        tuple(problem.reason for problem in problems),
        diagnose(example.incident).root_cause,
        seconds,
        reply.tokens.prompt,
        reply.tokens.completion,
    )


def _read_nothing(example: Example, cause: str, component: str) -> Said:
    pack: Pack = pack_of(example)
    none = cause == UNEXPLAINED
    ids = list(pack.speaks.get(cause, ()))[:4]
    answer = Answer(
        root_cause=cause,
        component=component,
        culprit_ranks=[] if none else list(pack.ranks),
        causal_chain=[Link(evidence_ids=ids)] if ids and not none else [],
        confidence="low",
        abstained=none,
    )
    reasons = tuple(problem.reason for problem in check(answer, pack))
    return Said(example.truth, answer, reasons, diagnose(example.incident).root_cause)
