"""What a format's reader hands over: spans in columns, not yet a tree."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import TraceFileError
from kat_otel.spans import Resource, SpanTable, StringTable

__all__ = ["Draft", "Interner"]

NO_LANE = -1
"""``lane`` of spans that take no part in containment: GPU work, annotations on the GPU's side."""


@dataclass(slots=True)
class Draft:
    """The spans of one file.

    Attributes:
        table: columns as the file says them; step, parent and ids are still unset unless
            ``has_ids``.
        lane: host thread whose intervals nest, numbered from 0, or NO_LANE, int32 ``(n,)``.
        process: space in which correlation ids are unique, int32 ``(n,)``, or None if there is
            but one.
        annotations: string indices of the names that may mark steps.
        rank_known: by resource, whether the file itself says its rank.
        notes: what was guessed or could not be read as intended.
        error: what ended the reading early; the table then holds what came before.
        has_ids: the file carries span and parent ids (OTLP).
    """

    table: SpanTable
    lane: NDArray[np.int32]
    process: NDArray[np.int32] | None = None
    annotations: set[int] = field(default_factory=set[int])
    rank_known: list[bool] = field(default_factory=list[bool])
    notes: list[str] = field(default_factory=list[str])
    error: TraceFileError | None = None
    has_ids: bool = False

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Resources of the table."""
        return self.table.resources


class Interner(dict[str, int]):
    """Text to string index, as a dictionary that asks the string table only for new text."""

    def __init__(self, strings: StringTable) -> None:
        super().__init__()
        self._strings = strings

    def __missing__(self, text: str) -> int:
        index = self[text] = self._strings.add(text)
        return index
