"""Spans of a recording as what CUPTI said when it was made: rows for the stand-in."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import SpanKind, SpanTable
from tests.instrumentation.standin import KINDS, ROW

__all__ = ["rows_of"]

_KIND_OF = {
    SpanKind.LAUNCH: KINDS["runtime"],
    SpanKind.SYNC: KINDS["runtime"],
    SpanKind.KERNEL: KINDS["kernel"],
    SpanKind.COLLECTIVE: KINDS["kernel"],
    SpanKind.MEMCPY: KINDS["copy"],
    SpanKind.MEMSET: KINDS["set"],
}
_COPIES = {"HtoD": 1, "DtoH": 2, "DtoD": 8, "PtoP": 10}


def rows_of(table: SpanTable, zero_unix_ns: int) -> tuple[NDArray[Any], list[str]]:
    """Returns calls and GPU work of one rank's step, and their names.

    Host operations are left out: CUPTI sees none of them without NVTX.
    """
    chosen = table.take(np.isin(table.kind, [int(kind) for kind in _KIND_OF]))
    rows = np.zeros(len(chosen), ROW)
    rows["start"] = chosen.start_ns - zero_unix_ns
    rows["end"] = rows["start"] + chosen.duration_ns
    rows["at"] = rows["end"]
    rows["kind"] = [_KIND_OF[SpanKind(kind)] for kind in chosen.kind.tolist()]
    names = list(table.strings)
    of_driver = np.array([re.match(r"cu[A-Z]", name) is not None for name in names])
    calls = rows["kind"] == KINDS["runtime"]
    rows["kind"][calls & of_driver[chosen.name]] = KINDS["driver"]
    rows["name"] = chosen.name
    rows["correlation"] = np.maximum(chosen.correlation, 0)
    for column in ("stream", "graph", "graph_node", "bytes"):
        rows[column] = np.maximum(getattr(chosen, column), 0)
    for column in ("grid", "block"):
        for index in np.unique(getattr(chosen, column)):
            sides = [int(side) for side in table.strings[int(index)].split(",") if side]
            rows[column][getattr(chosen, column) == index] = sides or [1, 1, 1]
    copies = np.flatnonzero(rows["kind"] == KINDS["copy"])
    for row in copies.tolist():
        name = chosen.name_of(row)
        rows["extra"][row] = next(kind for text, kind in _COPIES.items() if text in name)
    return rows, names
