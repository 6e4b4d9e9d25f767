"""Examples on disk: a file a split, one JSON object a line, and a card that says what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from kat_otel.adapt.card import card
from kat_otel.adapt.examples import SPLITS, Example, Made, Split
from kat_otel.errors import ConfigError

__all__ = ["CARD", "read_split", "write"]

CARD: Final = "CARD.md"


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
        (folder / CARD).write_text(card(made, command), encoding="utf-8")
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
