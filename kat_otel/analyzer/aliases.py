"""Names that the workload chose, kept away from the model: for a kernel's it reads ``K1``."""

from __future__ import annotations

import re
from typing import Final, Literal

from kat_otel.analyzer.clean import clean

__all__ = ["ALIAS", "Aliases", "Sort"]

Sort = Literal["kernel", "host", "device", "model", "group", "interface"]

_LETTERS: Final[dict[Sort, str]] = {
    "kernel": "K",
    "host": "N",  # node: H1 is the id of a fact about hardware
    "device": "D",
    "model": "M",
    "group": "G",
    "interface": "I",
}
ALIAS: Final = re.compile(rf"\b[{''.join(_LETTERS.values())}][1-9]\d{{0,3}}\b")
"""What an alias looks like."""
_NAME: Final = 160


class Aliases:
    """Numbers names by the order in which they are met, each sort by itself.

    The same facts give the same aliases, whatever the names in them are.
    """

    def __init__(self) -> None:
        self._of: dict[tuple[Sort, str], str] = {}
        self._names: dict[str, str] = {}
        self._count: dict[Sort, int] = {}

    def of(self, sort: Sort, name: str) -> str:
        """Returns the alias of a name."""
        known = self._of.get((sort, name))
        if known is None:
            self._count[sort] = self._count.get(sort, 0) + 1
            known = self._of[sort, name] = f"{_LETTERS[sort]}{self._count[sort]}"
            self._names[known] = clean(name, _NAME) or "(unnamed)"
        return known

    @property
    def names(self) -> dict[str, str]:
        """The names by their aliases, cleaned."""
        return dict(self._names)

    def restored(self, text: str) -> str:
        """Returns the text with the names, cleaned, where their aliases were.

        In one pass: a name that looks like an alias stays what it is.
        """
        return ALIAS.sub(lambda found: self._names.get(found[0], found[0]), text)
