"""The data card: what the examples are, how they are split, and what they cannot tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from kat_otel.adapt.examples import SPLITS, Example, Made, Split
from kat_otel.adapt.tasks import HELD_OUT, TASKS
from kat_otel.adapt.wording import TRAINED, UNSEEN
from kat_otel.analyzer.knowledge import UNEXPLAINED, embedded
from kat_otel.analyzer.prompt import PROMPT_VERSION

__all__ = ["card"]

_MEANS: Final[dict[Split, str]] = {
    "train": "what a model is trained on",
    "validation": "as `train`, other seeds: when to stop",
    "test_seen": "as `train`, other seeds",
    "test_tasks": "tasks that `train` does not have",
    "test_wording": "sentences that `train` does not have",
    "test_real": "kernels and times of real traces, worded as the product does",
    "test_as_sent": "as `train`, worded and ordered as the product does",
}

_CARD: Final = """\
# Examples for adapting a model to `kat.report/v1` incidents

Made by `{command}`, with prompt {prompt} and knowledge {knowledge}; the same command makes the
same files.

Each line has `messages` in chat form (system, user, the right answer as JSON without sentences)
and what it was made from. The question is an evidence pack of numbered facts; the answer names
cause, component, ranks, facts and actions by id. The truth is the fault that was injected, not what
the embedded rules make of it.

{table}

- **Tasks**: {tasks}, of which {held_out} are in `test_tasks` alone: {names}.
- **Wordings**: {trained} (0 is the product's own) in training, {unseen} in `test_wording` alone.
  Except in `test_real` and `test_as_sent` the causes stand in random order.
- **Hard negatives**: `confounded` tasks show a sign of another part of the culprit's machine that
  cannot have had this effect; a victim's own signs never reach a pack.
- **Abstentions**: two parts show signs that would each explain it, or the machines are measured and
  nothing stands out, or nobody measures them and the traces decide for none.
- **Left out**: {dropped}.

## Limits

- Simulated: no example is of a real incident. `test_real` has kernels and times of real traces, but
  the differences between its ranks were made, and so were its machines.
- Machines are sick in one way, from one moment on; eight ranks on two hosts; no slow copies,
  imbalance, structure or regressions; the causes are about even here and are not so in a fleet.
- The other wordings were written by hand, sentence by sentence; people word more freely.
- Licence: that of KAT-OTel. Kernels stand there by alias in `messages`, by name in `incident`.
"""


def card(made: Made, command: str) -> str:
    """Returns the card of examples, in Markdown.

    Args:
        made: the examples.
        command: that makes the same again.
    """
    dropped = [f"{count} cases: {why}" for why, count in sorted(made.dropped.items())]
    return _CARD.format(
        command=command,
        prompt=PROMPT_VERSION,
        knowledge=embedded().version,
        table=_table(made.examples),
        tasks=len(TASKS),
        held_out=len(HELD_OUT),
        names=", ".join(sorted(HELD_OUT)),
        trained=", ".join(map(str, TRAINED)),
        unseen=", ".join(map(str, UNSEEN)),
        dropped="; ".join(dropped) or "nothing",
    )


def _table(examples: Sequence[Example]) -> str:
    causes = sorted({example.truth.root_cause for example in examples} - {UNEXPLAINED})
    rows = ["| split | examples | abstain | causes | what it is |", "|---|---|---|---|---|"]
    for split in SPLITS:
        mine = Counter(e.truth.root_cause for e in examples if e.split == split)
        shown = ", ".join(f"{name} {mine[name]}" for name in causes if mine[name])
        means = _MEANS[split]
        rows.append(f"| {split} | {mine.total()} | {mine[UNEXPLAINED]} | {shown} | {means} |")
    return "\n".join(rows)
