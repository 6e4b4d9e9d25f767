"""Which spans of a step leave: all that matters to the incident, never an orphan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kat_otel.spans import NO_PARENT, SpanKind, SpanTable
from kat_otel.verdict import Incident

__all__ = ["cited_rows", "select_spans", "summary_spans", "with_ancestors"]

Mask = NDArray[np.bool_]


def with_ancestors(table: SpanTable, rows: Mask) -> Mask:
    """Returns ``rows`` and every ancestor of them, bool ``(n,)``."""
    kept = np.append(rows, False)  # NO_PARENT is the last, spare place
    front = np.flatnonzero(rows)
    while len(front):
        parents = table.parent[front]
        front = np.unique(parents[(parents != NO_PARENT) & ~kept[parents]])
        kept[front] = True
    return kept[:-1]


def cited_rows(table: SpanTable, incident: Incident) -> NDArray[np.int64]:
    """Returns the row of every span that the incident cites, -1 for those of other steps."""
    if not incident.spans or len(table) == 0:
        return np.full(len(incident.spans), -1, dtype=np.int64)
    ids = np.array([int(span.span_id or "0", 16) for span in incident.spans], dtype=np.uint64)
    traces = np.array(
        [int((span.trace_id or "0")[-16:], 16) for span in incident.spans], dtype=np.uint64
    )
    order = np.argsort(table.span_id, kind="stable")
    place = np.searchsorted(table.span_id, ids, sorter=order)
    rows = order[np.minimum(place, len(table) - 1)]
    found = (table.span_id[rows] == ids) & (table.trace_lo[rows] == traces)
    return np.where(found, rows, -1)


def summary_spans(table: SpanTable) -> Mask:
    """Returns what leaves of a healthy step: one span a rank, with its ancestors."""
    tops = table.kind <= SpanKind.WORKER_STEP.value
    return with_ancestors(table, tops & (table.kind >= SpanKind.STEP.value))


def select_spans(table: SpanTable, cited: Mask, limit: int) -> Mask:
    """Returns which spans to keep so that about ``limit`` leave, bool ``(n,)``.

    Worker steps, cited spans and the ancestors of everything kept always stay, even if that
    exceeds the limit. The rest is kept by what helps to understand the incident: collectives
    first (they show who waited), then what overlaps the cited spans in time, then the longest.

    Args:
        table: one step, parents linked.
        cited: spans that incidents cite.
        limit: spans to keep.
    """
    if len(table) <= limit:
        return np.ones(len(table), dtype=np.bool_)
    always = with_ancestors(table, cited) | summary_spans(table)
    candidates = np.flatnonzero(~always)
    ranked = candidates[np.argsort(-_interest(table, cited)[candidates], kind="stable")]

    def keep(count: int) -> Mask:
        rows = np.zeros(len(table), dtype=np.bool_)
        rows[ranked[:count]] = True
        return always | with_ancestors(table, rows)

    low, high = 0, min(len(ranked), limit)
    while low < high:  # more candidates never mean fewer spans, so bisection holds
        middle = (low + high + 1) // 2
        if np.count_nonzero(keep(middle)) <= limit:
            low = middle
        else:
            high = middle - 1
    return keep(low)


def _interest(table: SpanTable, cited: Mask) -> NDArray[np.float64]:
    """Returns a value between 0 and 3 to order the spans by; the fraction is the duration's."""
    longest = max(1, int(table.duration_ns.max(initial=0)))
    interest = table.duration_ns / (longest + 1)
    if np.any(cited):
        begin, end = table.start_ns[cited].min(), table.end_ns[cited].max()
        near = (table.end_ns >= begin) & (table.start_ns <= end)
        interest += near & table.on_gpu
    return interest + (table.kind == SpanKind.COLLECTIVE.value)
