"""Examples on disk: a file a split, one JSON object a line, and a card that says what they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from kat_otel.adapt.examples import SPLITS, Example, Made, Split
from kat_otel.adapt.tasks import HELD_OUT, TASKS
from kat_otel.adapt.wording import TRAINED, UNSEEN
from kat_otel.analyzer.knowledge import UNEXPLAINED, embedded
from kat_otel.analyzer.prompt import PROMPT_VERSION
from kat_otel.errors import ConfigError

__all__ = ["CARD", "read_split", "write"]

CARD: Final = "CARD.md"

_MEANS: Final[dict[Split, str]] = {
    "train": "what a model is trained on",
    "validation": "as `train`, other seeds: when to stop",
    "test_seen": "as `train`, other seeds",
    "test_tasks": "tasks that `train` does not have",
    "test_wording": "sentences that `train` does not have",
    "test_real": "kernels and times of real traces, worded as the product does",
    "test_as_sent": "as `train`, worded and ordered as the product does",
}


def write(made: Made, folder: Path, *, command: str) -> None:
    """Writes all splits and the card; what was there of an earlier run is replaced.

    Args:
        made: the examples.
        folder: made if it is not there.
        command: that makes the same again, for the card.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / CARD).is_file():
            raise ConfigError(f"{folder}: holds other files — name a new or empty folder")
        for split in SPLITS:
            mine = [example for example in made.examples if example.split == split]
            lines = b"".join(msgspec.json.encode(example) + b"\n" for example in mine)
            (folder / f"{split}.jsonl").write_bytes(lines)
        (folder / CARD).write_text(_card(made, command), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror})") from error


def read_split(folder: Path, split: Split) -> list[Example]:
    """Reads the examples of a split.

    Raises:
        ConfigError: it is not there, or a line is no example; the message names it.
    """
    path = folder / f"{split}.jsonl"
    found: list[Example] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    found.append(msgspec.json.decode(line, type=Example))
                except msgspec.DecodeError as error:
                    raise ConfigError(
                        f"{path}, line {number}: no example ({error}) — make them anew: "
                        "kat adapt data"
                    ) from error
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}) — make examples: kat adapt data --out "
            f"{folder}"
        ) from error
    return found


def _card(made: Made, command: str) -> str:
    return "\n".join(
        [
            "# Examples for adapting a model to `kat.report/v1` incidents",
            "",
            f"Made by `{command}`, with prompt {PROMPT_VERSION} and knowledge "
            f"{embedded().version}; the same command makes the same files.",
            "",
            "Each line has `messages` in chat form (system, user, the right answer as JSON without "
            "sentences) and what it was made from. The question is an evidence pack of numbered "
            "facts; the answer names cause, component, ranks, facts and actions by id. The truth is "
            "the fault that was injected, not what the embedded rules make of it.",
            "",
            *_table(made.examples),
            "",
            f"- **Tasks**: {len(TASKS)}, of which {len(HELD_OUT)} are in `test_tasks` alone: "
            f"{', '.join(sorted(HELD_OUT))}.",
            f"- **Wordings**: {', '.join(map(str, TRAINED))} (0 is the product's own) in training, "
            f"{', '.join(map(str, UNSEEN))} in `test_wording` alone. Except in `test_real` and "
            "`test_as_sent` causes stand in random order.",
            "- **Hard negatives**: `confounded` tasks show a sign of another part of the culprit's "
            "machine that cannot have had this effect; a victim's own signs never reach a pack.",
            "- **Abstentions**: two parts show signs that would each explain it, or the machines "
            "are measured and nothing stands out.",
            *(f"- Left out: {why}: {count} cases." for why, count in sorted(made.dropped.items())),
            "",
            "## Limits",
            "",
            "- Simulated: no example is of a real incident. `test_real` has real kernels and times "
            "with differences between ranks that were made, and simulated machines.",
            "- Machines are sick in one way, without history or slow beginnings; eight ranks on two "
            "hosts; no slow copies, imbalance, structure or regressions; the shares of causes are "
            "even here and are not so in a fleet.",
            "- Paraphrases were written by hand, sentence by sentence; a person would word freely.",
            "- Licence: that of KAT-OTel; nothing of anybody else's is in the files but kernel "
            "families as aliases.",
            "",
        ]
    )


def _table(examples: Sequence[Example]) -> list[str]:
    causes = sorted({example.truth.root_cause for example in examples} - {UNEXPLAINED})
    rows = [
        "| split | examples | abstain | causes, examples each | what it is |",
        "|---|---|---|---|---|",
    ]
    for split in SPLITS:
        mine = Counter(e.truth.root_cause for e in examples if e.split == split)
        total, none = mine.total(), mine[UNEXPLAINED]
        shown = ", ".join(f"{name} {mine[name]}" for name in causes if mine[name])
        rows.append(f"| {split} | {total} | {none} | {shown} | {_MEANS[split]} |")
    return rows
