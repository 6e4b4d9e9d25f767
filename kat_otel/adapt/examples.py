"""Examples: which cases a model is trained on, and on which of them it is asked.

Split by task and by wording: what is asked in ``test_tasks`` is of a kind that no example of the
training is, what is asked in ``test_wording`` stands in sentences that none has, and ``test_real``
has kernels and times of real traces, which the training has not. No two splits share a seed.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
import numpy as np

from kat_otel.adapt.answers import UnanswerableError, true_answer
from kat_otel.adapt.cases import Base, Case, play
from kat_otel.adapt.tasks import HELD_OUT, TASKS, Task
from kat_otel.adapt.wording import OWN, TRAINED, UNSEEN, user_text
from kat_otel.analyzer.answer_schema import Answer, answer_schema
from kat_otel.analyzer.check import check
from kat_otel.analyzer.clean import redact
from kat_otel.analyzer.context import Context
from kat_otel.analyzer.pack import Pack, make_pack
from kat_otel.analyzer.prompt import Message, messages
from kat_otel.verdict import Incident

__all__ = ["SPLITS", "Example", "Made", "Split", "answer_text", "make", "pack_of"]

Split = Literal[
    "train", "validation", "test_seen", "test_tasks", "test_wording", "test_real", "test_as_sent"
]
SPLITS: Final[tuple[Split, ...]] = (
    "train",
    "validation",
    "test_seen",
    "test_tasks",
    "test_wording",
    "test_real",
    "test_as_sent",
)
ABSTAINED: Final = 0.2
"""Share of examples in which the right answer is to name no cause."""
_OF_A_SEED: Final = 16
"""Most examples that share rank, sizes and noise of the traces."""
_ROUNDS: Final = 400
"""Seeds that a split may use up before it is given up: some faults are too small to be found."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One question with its right answer.

    Attributes:
        id: of the example.
        split: what it is for.
        task, base, seed, wording: what it was made from.
        messages: system, user and the right answer, in chat form.
        incident, context: from which the product itself makes the pack again.
    """

    id: str
    split: Split
    task: str
    base: str
    seed: int
    wording: int
    messages: list[Message]
    incident: Incident
    context: dict[str, Any]

    @property
    def truth(self) -> Answer:
        """The right answer."""
        return msgspec.json.decode(self.messages[-1]["content"], type=Answer)


@dataclass(slots=True)
class Made:
    """Examples, and what became of the cases that are none."""

    examples: list[Example] = field(default_factory=list[Example])
    dropped: Counter[str] = field(default_factory=Counter[str])


def make(bases: Sequence[Base], count: int, seed: int) -> Made:
    """Returns examples of every split, always the same for the same arguments.

    Args:
        bases: healthy steps; real ones make ``test_real`` and nothing else.
        count: examples of the training; each other split has a sixth of it.
        seed: of everything.

    Raises:
        ValueError: there is no simulated step to train on.
    """
    simulated = [base for base in bases if not base.real]
    if not simulated:
        raise ValueError("no simulated step among the bases: training needs one")
    made = Made()
    texts: set[str] = set()
    for number, split in enumerate(SPLITS):
        from_bases = [base for base in bases if base.real] if split == "test_real" else simulated
        wanted = count if split == "train" else max(count // 6, 10)
        if from_bases:
            first = seed * 1_000_003 + number * 10_007
            _fill(made, texts, split, bases=from_bases, wanted=wanted, seed=first)
    return made


def answer_text(answer: Answer) -> str:
    """Returns an answer as the schema without sentences orders it, on one line."""
    whole = msgspec.to_builtins(answer)
    del whole["summary"]
    for link in whole["causal_chain"]:
        del link["claim"]
    return json.dumps(whole, separators=(",", ":"))


def _fill(
    made: Made, texts: set[str], split: Split, *, bases: Sequence[Base], wanted: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    quota = {True: round(wanted * ABSTAINED), False: wanted - round(wanted * ABSTAINED)}
    by_cause: Counter[str] = Counter()
    of_a_seed = min(_OF_A_SEED, max(wanted // (2 * len(bases)), 1))  # several seeds and all bases
    for turn in range(_ROUNDS):
        found = _round(made, split, bases[turn % len(bases)], seed + turn, rng)
        for _ in range(of_a_seed):
            # The rarest cause first, so that no answer is right by being frequent.
            fits = [e for e in found if quota[e.truth.abstained] and _text(e) not in texts]
            if not fits:
                break
            example = min(fits, key=lambda e: by_cause[e.truth.root_cause])
            found.remove(example)
            texts.add(_text(example))
            quota[example.truth.abstained] -= 1
            by_cause[example.truth.root_cause] += 1
            made.examples.append(example)
        if not any(quota.values()):
            return


def _text(example: Example) -> str:
    return example.messages[1]["content"]


def _round(
    made: Made, split: Split, base: Base, seed: int, rng: np.random.Generator
) -> list[Example]:
    """Returns the examples of one seed, a random wording each."""
    found: list[Example] = []
    for tasks in _by_fault(split):
        for case in play(base, tasks, seed):
            wording = int(rng.choice(_wordings(split)))
            try:
                found.append(_example(split, case, wording, rng))
            except UnanswerableError as error:
                made.dropped[str(error)] += 1
    rng.shuffle(found)  # pyright: ignore[reportArgumentType] - it takes lists, too
    return found


def _by_fault(split: Split) -> Iterator[list[Task]]:
    groups: defaultdict[str, list[Task]] = defaultdict(list)
    for task in TASKS:
        if (task.name in HELD_OUT) == (split == "test_tasks"):
            groups[task.fault].append(task)
    yield from groups.values()


def _wordings(split: Split) -> tuple[int, ...]:
    if split == "test_wording":
        return UNSEEN
    return (OWN,) if split in {"test_as_sent", "test_real"} else TRAINED


def _example(split: Split, case: Case, wording: int, rng: np.random.Generator) -> Example:
    pack = make_pack(case.incident, case.context)
    answer = true_answer(case, pack)
    problems = check(answer, pack)
    if problems:
        raise UnanswerableError(f"the check refuses the truth: {problems[0].reason}")
    as_sent = split in {"test_as_sent", "test_real"}
    text = user_text(pack, wording, None if as_sent else rng)
    asked = messages(pack, answer_schema(pack, prose=False), shown=False)
    asked[-1] = {"role": "user", "content": redact(text)}
    told = [*asked, {"role": "assistant", "content": answer_text(answer)}]
    name = f"{case.task.name}/{case.base}/{case.seed}/{wording}"
    return Example(
        id=f"{split}-{zlib.crc32(name.encode()):08x}",
        split=split,
        task=case.task.name,
        base=case.base,
        seed=case.seed,
        wording=wording,
        messages=told,
        incident=case.incident,
        context=_plain(case.context),
    )


def _plain(context: Context) -> dict[str, Any]:
    return msgspec.to_builtins(context)


def pack_of(example: Example) -> Pack:
    """Returns the pack of an example as the product makes it."""
    return make_pack(example.incident, Context(**example.context))
