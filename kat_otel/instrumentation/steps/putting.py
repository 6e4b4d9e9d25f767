"""Kernels and calls of a batch in the form in which they wait, by the native library or by NumPy.

Texts, sizes and streams become numbers. Almost all of them have been seen before: the native
library looks them up, and what it does not find is left to NumPy, by which it is found next time.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import CaptureError
from kat_otel.instrumentation.capture.library import load
from kat_otel.instrumentation.capture.records import API, KERNEL
from kat_otel.instrumentation.steps.names import SLOTS, Names, Numbers
from kat_otel.spans import UNKNOWN, SpanKind

__all__ = ["Putting", "lane_keys", "put_work"]

_AT_ONCE: Final = 1 << 12  # records whose columns stay near while they are put in form
_NAME, _GRID, _BLOCK, _LANE = 1, 2, 4, 8  # enum kat_missed
_KNOWN: Final = struct.Struct("@PqPPq4Pq")  # struct kat_known
_KERNEL, _COLLECTIVE = int(SpanKind.KERNEL), int(SpanKind.COLLECTIVE)


class Putting:
    """Puts records in form. Used by one thread.

    Args:
        names: of the process.
        lanes: a number for each device and stream.
        library: the native one; None: NumPy does it.
    """

    def __init__(self, names: Names, lanes: Numbers, library: Any = None) -> None:
        self._names = names
        self._lanes = lanes
        self._library = library
        self._missed = np.empty(0, np.uint8)

    @classmethod
    def fastest(cls, names: Names, lanes: Numbers) -> Putting:
        """Returns one that uses the native library if it was built."""
        try:
            return cls(names, lanes, load())
        except CaptureError:  # who wants to capture by CUPTI is told; records are none the worse
            return cls(names, lanes)

    def kernels(self, kernels: NDArray[Any], said: Sequence[str], work: NDArray[Any]) -> None:
        """Puts kernels in form.

        Args:
            kernels: of dtype KERNEL.
            said: the batch's texts.
            work: what they become, of form WORK, as long.
        """
        if self._library is None or kernels.dtype != KERNEL:
            for low in range(0, len(kernels), _AT_ONCE):
                self._kernels(kernels[low : low + _AT_ONCE], said, work[low : low + _AT_ONCE])
            return
        missed = self._native(self._library.kat_form_kernels, kernels, said, work)
        if missed is None:
            return
        if len(rows := np.flatnonzero(missed & _NAME)):
            work["name"][rows] = self._names.of(said, kernels["name"][rows])
            met = self._names.are_collectives(work["name"][rows])
            work["kind"][rows] = np.where(met, _COLLECTIVE, _KERNEL)
        for bit, column in ((_GRID, "grid"), (_BLOCK, "block")):
            if len(rows := np.flatnonzero(missed & bit)):
                work[column][rows] = self._names.sizes(kernels[column][rows])
        if len(rows := np.flatnonzero(missed & _LANE)):
            work["lane"][rows] = self._lanes.of(lane_keys(kernels[rows]))

    def calls(self, apis: NDArray[Any], said: Sequence[str], calls: NDArray[Any]) -> None:
        """Puts calls in form.

        Args:
            apis: of dtype API.
            said: the batch's texts.
            calls: what they become, of form CALL, as long.
        """
        if self._library is None or apis.dtype != API:
            for low in range(0, len(apis), _AT_ONCE):
                self._calls(apis[low : low + _AT_ONCE], said, calls[low : low + _AT_ONCE])
            return
        missed = self._native(self._library.kat_form_calls, apis, said, calls)
        if missed is not None:
            rows = np.flatnonzero(missed)
            calls["name"][rows] = self._names.of(said, apis["name"][rows])
            calls["kind"][rows] = self._names.calls(calls["name"][rows])

    def _native(
        self, form: Any, records: NDArray[Any], said: Sequence[str], to: NDArray[Any]
    ) -> NDArray[np.uint8] | None:
        """Puts records in form; returns what each row missed, None if no row did."""
        if len(self._missed) < len(records):
            self._missed = np.empty(2 * len(records), np.uint8)
        names = self._names
        records = np.ascontiguousarray(records)
        name_of, meanings, kinds = names.said(said), names.meanings(), names.kinds()
        known = _KNOWN.pack(
            name_of.ctypes.data,
            min(len(said), len(name_of)),
            meanings.ctypes.data,
            kinds.ctypes.data,
            min(len(meanings), len(kinds)),
            *names.size_numbers.places(),
            *self._lanes.places(),
            SLOTS,
        )
        places = records.ctypes.data, len(records), known, to.ctypes.data, self._missed.ctypes.data
        return self._missed[: len(records)] if form(*places) else None

    def _kernels(self, kernels: NDArray[Any], said: Sequence[str], work: NDArray[Any]) -> None:
        names = self._names
        put_work(kernels, work, self._lanes)
        work["name"] = names.of(said, kernels["name"])
        work["grid"], work["block"] = names.sizes(kernels["grid"]), names.sizes(kernels["block"])
        work["kind"] = _KERNEL
        work["kind"][names.are_collectives(work["name"])] = _COLLECTIVE

    def _calls(self, apis: NDArray[Any], said: Sequence[str], calls: NDArray[Any]) -> None:
        for column in ("start", "end", "correlation", "thread"):
            calls[column] = apis[column]
        np.maximum(calls["end"], calls["start"], out=calls["end"])
        calls["name"] = self._names.of(said, apis["name"])
        calls["kind"] = self._names.calls(calls["name"])


def put_work(records: NDArray[Any], work: NDArray[Any], lanes: Numbers) -> None:
    """Fills in what all kinds of GPU work have; the rest is empty, or not known.

    Args:
        records: of any kind of GPU work.
        work: what they become, of form WORK, as long.
        lanes: a number for each device and stream.
    """
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
    work["lane"] = lanes.of(lane_keys(records))
    work["bytes"] = UNKNOWN
    for column in ("name", "grid", "block"):
        work[column] = 0


def lane_keys(records: NDArray[Any]) -> NDArray[np.int64]:
    """Returns device and stream of GPU work as one number, int64 ``(n,)``."""
    stream = records["stream"].astype(np.int64) & 0xFFFFFFFF
    return (records["device"].astype(np.int64) & 0x7FFF) << 32 | stream
