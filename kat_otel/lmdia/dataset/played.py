"""A case as it is played: its steps one after the other, and what the machines say meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import KatError
from kat_otel.lmdia.hardware import Request
from kat_otel.lmdia.label import Label
from kat_otel.lmdia.program import Mask, Program
from kat_otel.spans import Resource, SpanTable

__all__ = ["CannotPlayError", "Played", "PlayedStep", "affected_ids"]


class CannotPlayError(KatError):
    """A case that its source does not allow: the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class PlayedStep:
    """One step.

    Attributes:
        number: of the step.
        table: spans of all ranks.
        affected: for each fault of the label, ids of the spans whose own times it changed.
    """

    number: int
    table: SpanTable
    affected: tuple[NDArray[np.uint64], ...] = ()


class Played(Protocol):
    """A case that can be played as often as wanted, the same each time."""

    @property
    def label(self) -> Label:
        """The truth."""
        ...

    @property
    def workers(self) -> Sequence[Resource]:
        """The ranks."""
        ...

    def steps(self) -> Iterator[PlayedStep]:
        """Yields the steps in order; only one is in memory at a time."""
        ...

    def requests(self) -> Iterable[Request]:
        """Yields metrics and logs of the machines, on the same clock."""
        ...


def affected_ids(program: Program, table: SpanTable, cells: Mask) -> NDArray[np.uint64]:
    """Returns the ids of calls and GPU work of some operations.

    Args:
        program: what ran.
        table: its spans (:func:`kat_otel.lmdia.table.to_table`), all ranks.
        cells: bool ``(r, n)``, which operations of which ranks.
    """
    found: list[NDArray[np.uint64]] = []
    has_call = np.array([op.call != "" for op in program.operations], np.bool_)
    on_gpu = np.array([op.kind.on_gpu for op in program.operations], np.bool_)
    for row in np.flatnonzero(cells.any(axis=1)):
        ids = table.span_id[table.resource == row]
        calls = np.flatnonzero(program.present[row] & has_call)
        work = np.flatnonzero(program.present[row] & on_gpu)
        # a rank's rows: worker step, host operations, calls, GPU work
        found.append(ids[len(ids) - len(work) :][cells[row, work]])
        found.append(ids[len(ids) - len(work) - len(calls) :][: len(calls)][cells[row, calls]])
    return np.concatenate(found) if found else np.empty(0, np.uint64)
