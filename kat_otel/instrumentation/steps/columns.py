"""From the records of steps that end together to their span tables.

What takes a look at all steps at once is done here: who stands in whom, which collective is which.
The rows of each step are then filled in by :mod:`kat_otel.instrumentation.steps.filling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kat_otel import semconv
from kat_otel.instrumentation.steps.collectives import Calls, match, operation_of
from kat_otel.instrumentation.steps.filling import RANGES, WORKS, Fill, Spans
from kat_otel.instrumentation.steps.leaving import Leaving
from kat_otel.instrumentation.steps.names import Names
from kat_otel.instrumentation.steps.nesting import Hosts, inside_seen
from kat_otel.spans import UNKNOWN, Resource, SpanKind, SpanTable
from kat_otel.trees import WORKER_STEP_NAME

__all__ = ["to_tables"]

Int64 = NDArray[np.int64]
Attributes = Mapping[str, str | bool | int | float | bytes]

_COLLECTIVE: Final = int(SpanKind.COLLECTIVE)
_PLACEHOLDER: Final = (Resource(),)


def to_tables(
    leaving: Leaving,
    names: Names,
    lost: Sequence[int],
    said: Mapping[int, Attributes],
    fill: Fill,
) -> list[tuple[SpanTable, int]]:
    """Returns the spans of each step, row 0 the worker step, and the bytes that they alone hold.

    Args:
        leaving: their records.
        names: whose texts their names are.
        lost: records lost in each step.
        said: attributes of ranges by the number in their records.
        fill: makes the columns.
    """
    steps = leaving.steps
    if not steps:
        return []
    _name_graphs(leaving.work, names)
    group, sequence, peers = _collectives(leaving, names)
    hosts = Hosts(leaving.of_range, leaving.ranges), Hosts(leaving.of_call, leaving.calls)
    range_parent, call_parent = inside_seen(*hosts, leaving.ranges["said"] > 0)
    spans = Spans(
        leaving,
        names.strings.add(WORKER_STEP_NAME),
        names.strings.add("Synchronize"),
        range_parent,
        call_parent,
        group,
        sequence,
    )
    attributes: list[dict[int, Attributes]] = [
        {0: {semconv.DROPPED_COUNT: gone, semconv.CAPTURE_OVERHEAD_NS: one.overhead_ns}}
        for one, gone in zip(steps, lost, strict=True)
    ]
    for work, peer in peers:
        attributes[leaving.of_work[work]][spans.row(WORKS, work)] = {semconv.PEER: peer}
    for place, told in _told(leaving, said):
        attributes[leaving.of_range[place]][spans.row(RANGES, place)] = told
    return [
        (SpanTable(names.strings, _PLACEHOLDER, attributes=one, **columns), size)
        for one, (columns, size) in zip(attributes, fill(spans), strict=True)
    ]


def _told(leaving: Leaving, said: Mapping[int, Attributes]) -> list[tuple[int, Attributes]]:
    """Returns place and attributes of each range that a hook said: a few a step."""
    places = np.flatnonzero(leaving.ranges["said"])
    numbers: list[int] = leaving.ranges["said"][places].tolist()
    found = [(at, said[number]) for at, number in zip(places.tolist(), numbers, strict=True)]
    return [(at, attributes) for at, attributes in found if attributes]


def _name_graphs(work: NDArray[Any], names: Names) -> None:
    """Names graphs that were launched as a whole, numbered as they come."""
    unnamed = np.flatnonzero(work["name"] == 0)
    if not len(unnamed):
        return
    graphs, first, place = np.unique(work["graph"][unnamed], return_index=True, return_inverse=True)
    name = np.zeros(len(graphs), np.int32)
    for graph in np.argsort(first).tolist():
        name[graph] = names.graph(int(graphs[graph]))
    work["name"][unnamed] = name[place]


def _collectives(
    leaving: Leaving, names: Names
) -> tuple[NDArray[np.int32] | None, Int64 | None, list[tuple[int, int]]]:
    """Finds what NCCL said of the collectives; their bytes are written into their records.

    Returns:
        Communicator (a text) and sequence number of all GPU work, None if none has any; and place
        and peer of sends and receives.
    """
    called = np.flatnonzero(leaving.ranges["operation"])
    launched = np.flatnonzero((leaving.work["kind"] == _COLLECTIVE) & (leaving.call_of_work >= 0))
    if not len(called) or not len(launched):
        return None, None, []
    ranges, calls = leaving.ranges[called], leaving.calls[leaving.call_of_work[launched]]
    threads = np.unique(np.concatenate([ranges["thread"], calls["thread"]]))

    def lane(step: Int64, thread: Int64) -> Int64:
        return step * len(threads) + np.searchsorted(threads, thread)

    exact, alike = match(
        Calls(
            lane(leaving.of_range[called], ranges["thread"]),
            ranges["start"],
            ranges["end"],
            ranges["operation"].astype(np.int64),
            ranges["group"],
        ),
        Calls(
            lane(leaving.of_work[launched], calls["thread"]),
            calls["start"],
            calls["end"],
            operation_of(names.strings, leaving.work["name"][launched]),
            np.zeros(len(calls), np.uint64),
        ),
    )
    group = np.zeros(len(leaving.work), np.int32)
    sequence = np.full(len(leaving.work), UNKNOWN, np.int64)
    told = np.flatnonzero(alike >= 0)
    groups, place = np.unique(ranges["group"][alike[told]], return_inverse=True)
    texts = np.array([names.strings.add(f"{group:016x}") for group in groups.tolist()], np.int32)
    group[launched[told]] = texts[place]
    sure = np.flatnonzero(exact >= 0)
    where, which = launched[sure], ranges[exact[sure]]
    sequence[where] = which["sequence"]
    leaving.work["bytes"][where] = which["bytes"]
    peers = np.flatnonzero(which["peer"] >= 0)
    pairs = zip(where[peers].tolist(), which["peer"][peers].tolist(), strict=True)
    return group, sequence, list(pairs)
