"""Which device the host spans of an Nsight Systems export belong to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import SpanKind, SpanTable
from kat_otel.trees import join_launches

__all__ = ["owners_of"]

NOBODY = -1


def owners_of(
    table: SpanTable,
    *,
    device: NDArray[Any],
    on_device: NDArray[np.bool_],
    lane: NDArray[np.int32],
    process: NDArray[Any],
    devices: int,
) -> NDArray[np.int64]:
    """Returns the device (by position) of every span, int64 ``(n,)``; -1 if its process has none.

    Work on a device is the device's; a launch is that of the work it launched; other host work
    is that of the device its thread launches most on, else the one its process uses most. A
    record of a wait is its call's.

    Args:
        table: the spans.
        device: position of the device, valid where ``on_device``.
        on_device: bool ``(n,)``.
        lane: host thread, -1 on devices, int32 ``(n,)``.
        process: process, numbered from 0, integers ``(n,)``.
        devices: how many there are.
    """
    owner = np.where(on_device, device, NOBODY).astype(np.int64)
    by_process = _most(
        process[on_device], owner[on_device], int(process.max(initial=0)) + 1, devices
    )
    work = np.flatnonzero(on_device)
    calls = np.flatnonzero(
        ((table.kind == SpanKind.LAUNCH) | (table.kind == SpanKind.SYNC)) & (lane >= 0)
    )
    found, hit = _calls_of(table, process, calls, work)
    launched, their_device = calls[found], owner[work[hit]]
    by_lane = _most(lane[launched], their_device, int(lane.max(initial=-1)) + 1, devices)
    host = np.flatnonzero(lane >= 0)
    own = by_lane[lane[host]]
    owner[host] = np.where(own >= 0, own, by_process[process[host]])
    owner[launched] = their_device
    waits = np.flatnonzero(~on_device & (lane < 0))  # records that do not say their device
    owner[waits] = by_process[process[waits]]
    found, hit = _calls_of(table, process, calls, waits)
    owner[waits[hit]] = owner[calls[found]]
    return owner


def _calls_of(
    table: SpanTable, process: NDArray[Any], calls: NDArray[np.int64], work: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns which of the work has a call on record, bool, and the position of that call."""
    found = join_launches(
        process[calls], table.correlation[calls], process[work], table.correlation[work]
    )
    return found[found >= 0], found >= 0


def _most(
    who: NDArray[Any], device: NDArray[np.int64], count: int, devices: int
) -> NDArray[np.int64]:
    """Returns the most frequent device of each, int64 ``(count,)``; -1 for none."""
    votes = np.bincount(who.astype(np.int64) * devices + device, minlength=count * devices)
    votes = votes.reshape(count, devices)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), NOBODY)
