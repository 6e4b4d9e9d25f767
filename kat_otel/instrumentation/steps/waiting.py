"""Records that wait for their step to end, in one form whatever their kind.

Copies: a batch's arrays last only until the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.capture.records import Batch
from kat_otel.instrumentation.steps.collectives import operation_of
from kat_otel.instrumentation.steps.forms import CALL, RANGE, TRACING, WAIT, WORK
from kat_otel.instrumentation.steps.names import Names, Numbers
from kat_otel.instrumentation.steps.putting import Putting, put_work
from kat_otel.spans import UNKNOWN, SpanKind

__all__ = ["Waiting"]

_MOST_LANES: Final = 1 << 14  # streams beyond that share a number
_LEAST_ROOM: Final = 1 << 12
_STREAM_WAITS: Final = 2  # a stream waits for an event: the host goes on


class _Pool:
    """Records of a form one behind the other, in memory that is used again."""

    def __init__(self, form: np.dtype[Any]) -> None:
        self._room = np.empty(_LEAST_ROOM, form)
        self.rows = 0

    def more(self, count: int) -> NDArray[Any]:
        """Returns room for so many records behind those that are there; what is in it is old."""
        rows = self.rows + count
        if rows > len(self._room):
            room = np.empty(rows + rows // 2, self._room.dtype)
            _bytes(room)[: self.rows] = _bytes(self._room)[: self.rows]
            self._room = room
        self.rows = rows
        return self._room[rows - count : rows]

    def here(self) -> NDArray[Any]:
        """Returns the records: a view."""
        return self._room[: self.rows]

    def clear(self) -> None:
        """Forgets them; memory that was needed once, and long no more, is given back."""
        if len(self._room) > max(8 * self.rows, 16 * _LEAST_ROOM):
            self._room = np.empty(len(self._room) // 2, self._room.dtype)
        self.rows = 0


class Waiting:
    """Records by form, in the order in which they came.

    Args:
        names: of the process.
        putting: puts kernels and calls in form.

    Attributes:
        left_out: records that become nothing: waits of streams, which are no host time.
        lanes: a number for each device and stream that work was seen on.
    """

    def __init__(
        self, names: Names, putting: Callable[[Names, Numbers], Putting] = Putting.fastest
    ) -> None:
        self._names = names
        self._pools = {form: _Pool(form) for form in (WORK, CALL, RANGE, WAIT, TRACING)}
        self.left_out = 0
        self.lanes = Numbers(lambda _: min(len(self.lanes), _MOST_LANES))
        self._putting = putting(names, self.lanes)

    def add(self, batch: Batch) -> None:
        """Takes the records of a batch."""
        self._add_work(batch)
        self._add_calls(batch)
        self._add_ranges(batch)
        waits = batch.syncs[batch.syncs["kind"] != _STREAM_WAITS]
        self.left_out += len(batch.syncs) - len(waits)
        self._like(WAIT, waits)
        self._like(TRACING, batch.overheads)

    @property
    def rows(self) -> int:
        """Records of all forms."""
        return sum(pool.rows for pool in self._pools.values())

    def of(self, form: np.dtype[Any]) -> NDArray[Any]:
        """Returns the records of a form: a view, until :meth:`keep`."""
        return self._pools[form].here()

    def keep(self, form: np.dtype[Any], records: NDArray[Any]) -> None:
        """These records, a copy of some, are all that still waits."""
        pool = self._pools[form]
        pool.clear()
        if len(records):
            _bytes(pool.more(len(records)))[:] = _bytes(records)

    def put(self, form: np.dtype[Any], records: NDArray[Any]) -> None:
        """Adds records that have their form already."""
        if len(records):
            _bytes(self._pools[form].more(len(records)))[:] = _bytes(records)

    def rename(self, old: Any, names: Names) -> None:
        """Moves what waits to another table of texts; ``old`` is the one that it has now."""
        for form in (WORK, CALL, RANGE):
            records = self.of(form)
            for column in {"name", "grid", "block"} & set(form.names or ()):
                used, place = np.unique(records[column], return_inverse=True)
                moved = [names.strings.add(old[index]) for index in used.tolist()]
                records[column] = np.array(moved, np.int32)[place]

    def _add_work(self, batch: Batch) -> None:
        names = self._names
        if len(kernels := batch.kernels):
            self._putting.kernels(kernels, batch.strings, self._pools[WORK].more(len(kernels)))
        if len(copies := batch.copies):
            work = self._work(copies)
            work["name"] = names.copies[copies["kind"]]
            work["bytes"], work["kind"] = copies["bytes"], SpanKind.MEMCPY
        if len(sets := batch.sets):
            work = self._work(sets)
            work["name"], work["bytes"], work["kind"] = names.memset, sets["bytes"], SpanKind.MEMSET
        if len(batch.graphs):  # named when they leave, in their order
            self._work(batch.graphs)["kind"] = SpanKind.KERNEL

    def _work(self, records: NDArray[Any]) -> NDArray[Any]:
        """Returns records of WORK, already put, with what all kinds of GPU work have."""
        work = self._pools[WORK].more(len(records))
        put_work(records, work, self.lanes)
        return work

    def _like(self, form: np.dtype[Any], records: NDArray[Any]) -> NDArray[Any]:
        """Adds records with the columns that both have; an end before its start is at its start."""
        made = self._pools[form].more(len(records))
        for column in set(form.names or ()) & set(records.dtype.names or ()):
            made[column] = records[column]
        np.maximum(made["end"], made["start"], out=made["end"])
        return made

    def _add_calls(self, batch: Batch) -> None:
        if len(apis := batch.apis):
            self._putting.calls(apis, batch.strings, self._pools[CALL].more(len(apis)))

    def _add_ranges(self, batch: Batch) -> None:
        if not len(batch.markers):
            return
        ranges = self._like(RANGE, batch.markers)
        ranges["name"] = self._names.of(batch.strings, batch.markers["name"])
        ranges["sequence"], ranges["said"] = UNKNOWN, 0
        told = ranges["group"] != 0  # only calls of collectives name a communicator
        ranges["operation"] = np.where(told, operation_of(self._names.strings, ranges["name"]), 0)


def _bytes(records: NDArray[Any]) -> NDArray[Any]:
    return records.view(np.dtype((np.void, records.dtype.itemsize)))
