"""What becomes of spans, worked out before any of it is said or sent.

A stage may fail on what workers send. As long as nothing has been counted or offered yet, the
spans can still leave as they came; afterwards nobody could say which of them had left.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.config import TracesConfig
from kat_otel.otlp import encode_requests
from kat_otel.processor.assembled import AssembledStep
from kat_otel.processor.exporter import Payload
from kat_otel.processor.judging import completeness
from kat_otel.processor.mark import Root, mark_incidents, named_by_rank, with_root
from kat_otel.processor.reduce import cited_rows, select_spans, summary_spans, with_ancestors
from kat_otel.spans import SpanKind, SpanTable
from kat_otel.telemetry import Outcome
from kat_otel.verdict import Report

__all__ = ["Leaving", "as_they_came", "as_trace", "encoded"]

_PARTS: Final = 64
"""Pieces of a table that cannot be encoded whole: what is wrong is in one of them, mostly."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Leaving:
    """The fate of some spans.

    Attributes:
        payloads: requests that carry spans away.
        fates: of the spans in no payload, by outcome and reason.
    """

    payloads: tuple[Payload, ...] = ()
    fates: Mapping[tuple[Outcome, str], int] = field(default_factory=dict[tuple[Outcome, str], int])


def encoded(
    table: SpanTable,
    receipts: tuple[int, ...],
    limit: int | None,
    *,
    created: int = 0,
    summarised: int = 0,
    rows: NDArray[np.int64] | None = None,
) -> Leaving:
    """Returns the requests that carry a table.

    Args:
        table: the spans.
        receipts: of the batches that they came in.
        limit: bytes of a request; None if nothing is exported.
        created: how many rows at the beginning are ours and stand in no book.
        summarised: spans left out of the table on purpose.
        rows: the rows that leave; all if None.
    """
    fates: dict[tuple[Outcome, str], int] = {("summarised", ""): summarised}
    if limit is None:
        spans = len(table) - created if rows is None else len(rows)
        fates["dropped", "no exporter"] = spans
        return Leaving(fates=fates)
    payloads = tuple(
        Payload("traces", part.data, int(np.count_nonzero(part.rows >= created)), receipts)
        for part in encode_requests(table, rows, limit=limit)
    )
    return Leaving(payloads, fates)


def as_they_came(
    tables: Iterable[SpanTable], receipts: tuple[int, ...], limit: int | None
) -> Leaving:
    """Returns the requests that carry tables of which a stage failed.

    What cannot even be encoded is dropped, with its neighbours in a sixty-fourth of the table.
    """
    payloads: list[Payload] = []
    fates: Counter[tuple[Outcome, str]] = Counter()
    for table in tables:
        try:
            parts = [encoded(table, receipts, limit)]
        except Exception:
            logger.exception("%d spans cannot be encoded together", len(table))
            parts = _in_parts(table, receipts, limit)
        for part in parts:
            payloads += part.payloads
            fates.update(part.fates)
    return Leaving(tuple(payloads), fates)


def _in_parts(table: SpanTable, receipts: tuple[int, ...], limit: int | None) -> list[Leaving]:
    leaving: list[Leaving] = []
    for rows in np.array_split(np.arange(len(table)), min(_PARTS, len(table))):
        try:
            leaving.append(encoded(table, receipts, limit, rows=rows))
        except Exception:
            logger.debug("a part of them", exc_info=True)  # said once, for the whole table
            leaving.append(Leaving(fates={("dropped", "internal error"): len(rows)}))
    return leaving


def as_trace(
    step: AssembledStep, report: Report, traces: TracesConfig, limit: int | None, *, whole: bool
) -> Leaving:
    """Returns the requests that carry a judged step: its root, what is marked, what is kept.

    Args:
        step: the step; told whether all of it leaves.
        report: what was found.
        traces: how much of it is kept.
        limit: bytes of a request; None if nothing is exported.
        whole: an incident wants all of it.
    """
    table = step.table
    active = report.active
    bounds = int(table.start_ns.min()), int(table.end_ns.max())
    # Workers name the root as their parent but the processor alone emits it.
    own = table.kind != SpanKind.STEP
    cited = np.zeros(len(table), dtype=np.bool_)
    for incident in active:
        rows = cited_rows(table, incident)
        cited[rows[rows >= 0]] = True
    if whole or traces.healthy == "all":
        kept = select_spans(table, cited, traces.max_spans_per_trace - 1)
    else:
        kept = summary_spans(table) | with_ancestors(table, cited)
    kept &= own
    step.record.forwarded_whole = bool(np.all(kept | ~own))
    summarised = int(len(table) - np.count_nonzero(kept))
    if not np.any(kept):
        return Leaving(fates={("summarised", ""): summarised})
    marked = mark_incidents(table, active, reports=whole, silenced=step.silenced)
    marked = named_by_rank(marked.take(kept))
    notes = completeness(step)
    if report.abstained is not None:
        notes = "; ".join(filter(None, (notes, f"not judged: {report.abstained.reason}")))
    missing, silenced = step.missing_ranks, step.silenced
    root = Root(step.instance, step.step, summarised, missing, notes, whole, silenced)
    rooted = with_root(marked, bounds, root, active)
    return encoded(rooted, step.receipts, limit, created=1, summarised=summarised)
