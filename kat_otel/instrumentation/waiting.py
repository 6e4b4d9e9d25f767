"""Records that wait for their step to end, in one form whatever their kind.

Copies: a batch's arrays last only until the next one. What leaves is taken out in one piece,
and what stays is put back, so a record is moved once a step, not once a batch.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.instrumentation.collectives import operation_of
from kat_otel.instrumentation.forms import CALL, RANGE, TRACING, WAIT, WORK, as_one
from kat_otel.instrumentation.names import Names, Numbers
from kat_otel.instrumentation.records import Batch
from kat_otel.spans import UNKNOWN, SpanKind

__all__ = ["Waiting"]

_STREAM_WAITS: Final = 2  # a stream waits for an event: the host goes on


class Waiting:
    """Records by form, in the order in which they came.

    Attributes:
        rows: records in all.
        left_out: records that become nothing: waits of streams, which are no host time.
        lanes: a number for each device and stream that work was seen on.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._chunks: dict[np.dtype[Any], list[NDArray[Any]]] = {
            form: [] for form in (WORK, CALL, RANGE, WAIT, TRACING)
        }
        self.rows = 0
        self.left_out = 0
        self.lanes = Numbers(lambda _: len(self.lanes))

    def add(self, batch: Batch) -> None:
        """Takes the records of a batch."""
        self._add_work(batch)
        self._add_calls(batch)
        self._add_ranges(batch)
        waits = batch.syncs[batch.syncs["kind"] != _STREAM_WAITS]
        self.left_out += len(batch.syncs) - len(waits)
        for form, records in ((WAIT, waits), (TRACING, batch.overheads)):
            if len(records):
                self._put(form, _like(form, records))

    def _put(self, form: np.dtype[Any], records: NDArray[Any]) -> None:
        self._chunks[form].append(records)
        self.rows += len(records)

    def take(self, form: np.dtype[Any]) -> NDArray[Any]:
        """Returns all records of a form, which are no longer here."""
        chunks, self._chunks[form] = self._chunks[form], []
        found = as_one(form, chunks)
        self.rows -= len(found)
        return found

    def keep(self, form: np.dtype[Any], records: NDArray[Any]) -> None:
        """Puts back what still waits."""
        if len(records):
            self._put(form, records)

    def rename(self, old: Any, names: Names) -> None:
        """Moves what waits to another table of texts; ``old`` is the one that it has now."""
        for form in (WORK, CALL, RANGE):
            for chunk in self._chunks[form]:
                for column in {"name", "grid", "block"} & set(form.names or ()):
                    used, place = np.unique(chunk[column], return_inverse=True)
                    moved = [names.strings.add(old[index]) for index in used.tolist()]
                    chunk[column] = np.array(moved, np.int32)[place]

    def _add_work(self, batch: Batch) -> None:
        names = self._names
        if len(kernels := batch.kernels):
            work = self._work(kernels)
            work["name"] = names.of(batch.strings, kernels["name"])
            work["grid"], work["block"] = (
                names.sizes(kernels["grid"]),
                names.sizes(kernels["block"]),
            )
            work["kind"] = SpanKind.KERNEL
            work["kind"][names.are_collectives(work["name"])] = SpanKind.COLLECTIVE
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
        work = np.zeros(len(records), WORK)
        for column in ("start", "end", "correlation", "stream"):
            work[column] = records[column]
        np.maximum(work["end"], work["start"], out=work["end"])
        graph = records["graph"]
        if graph.any():
            work["graph"] = np.where(graph == 0, UNKNOWN, graph.astype(np.int64))
            node = records["graph_node"]
            work["graph_node"] = np.where(node == 0, UNKNOWN, node)
        else:
            work["graph"] = work["graph_node"] = UNKNOWN
        stream = records["stream"].astype(np.int64) & 0xFFFFFFFF
        work["lane"] = self.lanes.of((records["device"].astype(np.int64) & 0x7FFF) << 32 | stream)
        work["bytes"] = UNKNOWN
        self._put(WORK, work)
        return work

    def _add_calls(self, batch: Batch) -> None:
        if not len(batch.apis):
            return
        calls = _like(CALL, batch.apis)
        calls["name"] = self._names.of(batch.strings, batch.apis["name"])
        calls["kind"] = self._names.calls(calls["name"])
        self._put(CALL, calls)

    def _add_ranges(self, batch: Batch) -> None:
        if not len(batch.markers):
            return
        ranges = _like(RANGE, batch.markers)
        ranges["name"] = self._names.of(batch.strings, batch.markers["name"])
        ranges["sequence"] = UNKNOWN
        told = self._names.of(batch.strings, batch.markers["domain"]) == self._names.nccl
        told &= ranges["group"] != 0
        ranges["operation"] = np.where(told, operation_of(self._names.strings, ranges["name"]), 0)
        self._put(RANGE, ranges)


def _like(form: np.dtype[Any], records: NDArray[Any]) -> NDArray[Any]:
    """Returns the columns that both have; an end before its start is one at its start."""
    made = np.zeros(len(records), form)
    for column in form.names or ():
        if column in (records.dtype.names or ()):
            made[column] = records[column]
    np.maximum(made["end"], made["start"], out=made["end"])
    return made
