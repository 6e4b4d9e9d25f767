"""What one rank of a trace did, in host order: the rows that a program is made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import NO_PARENT, UNKNOWN, SpanKind, SpanTable

__all__ = ["Observed", "observe"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """Items of one rank in host order; an item is a call, GPU work, or both.

    Attributes:
        call: row of the host call, ``NO_PARENT`` if the GPU work has none of its own (a graph
            node, or launched before the window).
        work: row of the GPU work, ``NO_PARENT`` for synchronisations and graph launches.
        launcher: item that launched a graph node, ``UNKNOWN`` otherwise.
        host: row of the nearest host operation around the call, ``NO_PARENT`` if none.
    """

    call: Rows
    work: Rows
    launcher: Rows
    host: Rows

    def __len__(self) -> int:
        return len(self.call)


def observe(table: SpanTable, resource: int) -> Observed:
    """Returns the items of one resource's spans.

    Calls that neither launch GPU work nor wait for it (queries, event records) are left out:
    their time becomes part of the host's gap.
    """
    mine = table.resource == resource
    work = np.flatnonzero(mine & table.on_gpu)
    work = work[np.argsort(table.start_ns[work], kind="stable")]
    launch = _launches(table, mine, work)
    syncs = np.flatnonzero(mine & _synchronises(table))
    launches, children = np.unique(launch[launch >= 0], return_counts=True)
    graphs = frozenset(launches[children > 1].tolist())
    calls = np.concatenate([launches, syncs])
    calls = calls[np.argsort(table.start_ns[calls], kind="stable")]

    nodes: dict[int, list[int]] = {}
    for row, parent in zip(work.tolist(), launch.tolist(), strict=True):
        nodes.setdefault(parent, []).append(row)
    items: list[tuple[int, int, int]] = [
        (NO_PARENT, row, UNKNOWN) for row in nodes.get(NO_PARENT, ())
    ]
    for call in calls.tolist():
        if call in graphs:
            launcher = len(items)
            items.append((call, NO_PARENT, UNKNOWN))
            items.extend((NO_PARENT, row, launcher) for row in nodes[call])
        else:
            items.append((call, nodes.get(call, [NO_PARENT])[0], UNKNOWN))
    columns = np.array(items, np.int64).reshape(-1, 3)
    return Observed(
        call=columns[:, 0],
        work=columns[:, 1],
        launcher=columns[:, 2],
        host=_hosts(table, columns[:, 0]),
    )


def _launches(table: SpanTable, mine: NDArray[np.bool_], work: Rows) -> Rows:
    """Returns the launching row of each row of GPU work: the parent, else by correlation id."""
    parent = table.parent[work].astype(np.int64)
    is_launch = (parent >= 0) & (table.kind[parent] == SpanKind.LAUNCH)
    launch = np.where(is_launch, parent, NO_PARENT)
    candidates = np.flatnonzero(
        mine & (table.kind == SpanKind.LAUNCH) & (table.correlation != UNKNOWN)
    )
    if len(candidates) == 0:
        return launch
    candidates = candidates[np.argsort(table.correlation[candidates], kind="stable")]
    known = table.correlation[candidates]
    wanted = table.correlation[work]
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    found = (known[at] == wanted) & (wanted != UNKNOWN)
    return np.where((launch < 0) & found, candidates[at], launch)


def _synchronises(table: SpanTable) -> NDArray[np.bool_]:
    names = np.array(
        ["Synchronize" in text and "(" not in text for text in table.strings], np.bool_
    )
    calls = (table.kind == SpanKind.SYNC) | (table.kind == SpanKind.LAUNCH)
    return calls & names[table.name]


def _hosts(table: SpanTable, calls: Rows) -> Rows:
    """Returns the nearest ancestor of kind HOST_OP of each call row."""
    current = np.where(calls >= 0, table.parent[calls], NO_PARENT).astype(np.int64)
    host = np.full(len(calls), NO_PARENT, np.int64)
    while (current >= 0).any():
        found = (current >= 0) & (host < 0) & (table.kind[current] == SpanKind.HOST_OP)
        host[found] = current[found]
        current = np.where((current >= 0) & (host < 0), table.parent[current], NO_PARENT)
    return host
