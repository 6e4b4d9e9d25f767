"""Forms of records while they wait: texts are indices into the table of names, kinds are SpanKinds.

NumPy moves structured records field by field, which takes 25 times as long as moving their
bytes: :func:`pick` moves bytes.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["CALL", "RANGE", "TRACING", "WAIT", "WORK", "pick"]

WORK: Final = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("correlation", "<i8"),
        ("graph_node", "<i8"),
        ("bytes", "<i8"),
        ("graph", "<i8"),
        ("name", "<i4"),
        ("grid", "<i4"),
        ("block", "<i4"),
        ("stream", "<i4"),
        ("lane", "<i4"),  # a number for device and stream
        ("kind", "u1"),  # SpanKind
    ],
    align=True,
)
"""What the GPU did."""

CALL: Final = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("correlation", "<i8"),
        ("thread", "<i8"),
        ("name", "<i4"),
        ("kind", "u1"),  # SpanKind: LAUNCH, SYNC or HOST_OP, by its name
    ],
    align=True,
)
"""A call of the runtime or driver."""

RANGE: Final = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("thread", "<i8"),
        ("bytes", "<i8"),
        ("group", "<u8"),
        ("sequence", "<i8"),  # of a collective; UNKNOWN before it is counted
        ("name", "<i4"),
        ("peer", "<i4"),
        ("said", "<i4"),  # number of what a hook said (said_ranges.py); 0: seen by NVTX
        ("operation", "u1"),  # collectives.Operation
    ],
    align=True,
)
"""A range of the host's time that the program named."""

WAIT: Final = np.dtype(
    [("start", "<i8"), ("end", "<i8"), ("correlation", "<i8"), ("kind", "u1")], align=True
)
"""The host waits, as CUPTI's synchronisation records say it."""

TRACING: Final = np.dtype([("start", "<i8"), ("end", "<i8")])
"""Time that tracing itself took."""


def pick(records: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """Returns some of the records, as ``records[rows]`` does; a view if they stand together.

    Args:
        records: structured.
        rows: row numbers, or a bool mask.
    """
    if rows.dtype == np.bool_:
        rows = np.flatnonzero(rows)
    count = len(rows)
    if count and int(rows[-1]) - int(rows[0]) == count - 1 and (rows[1:] > rows[:-1]).all():
        return records[int(rows[0]) : int(rows[0]) + count]
    return _bytes(records)[rows].view(records.dtype)


def _bytes(records: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(records).view(np.dtype((np.void, records.dtype.itemsize)))
