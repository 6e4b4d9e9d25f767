"""Chats as the trainer takes them: the question is read, the answer alone is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kat_otel.adapt.examples import Example
from kat_otel.adapt.training.libraries import Libraries
from kat_otel.errors import ConfigError

__all__ = ["chats"]


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
