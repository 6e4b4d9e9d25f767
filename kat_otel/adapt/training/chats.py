"""Chats as the trainer takes them: the question is read, the answer alone is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kat_otel.adapt.examples import Example, Split
from kat_otel.adapt.files import read_split
from kat_otel.adapt.training.libraries import Libraries
from kat_otel.errors import ConfigError

__all__ = ["chats", "spread"]


def spread(data: Path, split: Split, count: int | None) -> list[Example]:
    """Returns so many of a split, evenly over it: neighbours share rank and sizes of the fault.

    Args:
        data: folder that ``kat adapt data`` wrote.
        split: its name.
        count: None for all.

    Raises:
        ConfigError: it has fewer.
    """
    found = read_split(data, split)
    if len(found) < (1 if count is None else count):
        raise ConfigError(
            f"{data}: has {len(found)} examples in {split}, {count or 'some'} are wanted — make "
            "more: kat adapt data --examples N"
        )
    wanted = len(found) if count is None else count
    return [found[at * len(found) // wanted] for at in range(wanted)]


def chats(
    libraries: Libraries, examples: Sequence[Example], tokenizer: Any, max_tokens: int
) -> Any:
    """Returns a data set of ``prompt`` and ``completion``, each a list of messages.

    Raises:
        ConfigError: an example has more tokens; cut off, it would teach half an answer.
    """
    sizes = [_tokens(tokenizer, example) for example in examples]
    if too_long := sum(size > max_tokens for size in sizes):
        raise ConfigError(
            f"{too_long} of {len(examples)} examples have more than training.max_tokens "
            f"({max_tokens}) — raise it to {max(sizes)} or more"
        )
    rows = [{"prompt": e.messages[:-1], "completion": e.messages[-1:]} for e in examples]
    return libraries.datasets.Dataset.from_list(rows)


def _tokens(tokenizer: Any, example: Example) -> int:
    text = tokenizer.apply_chat_template(example.messages, tokenize=False)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
