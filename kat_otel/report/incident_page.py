"""The page of one incident of a running processor; ``kat process`` hands it to its debug port."""

from __future__ import annotations

from kat_otel.kernels import classify
from kat_otel.report.html import render_html
from kat_otel.report.page import Words
from kat_otel.spans import SpanTable
from kat_otel.verdict import Report

__all__ = ["incident_page"]

_LIST = "/debug/steps"


def incident_page(
    report: Report, spans: SpanTable | None, healthy: SpanTable | None, missing: str
) -> str:
    """Returns the page.

    Args:
        report: on one incident.
        spans: the step that it is drawn in, None if there is none.
        healthy: an earlier step of the same ranks in which nothing was wrong, or None.
        missing: why there are no spans.
    """
    words = Words(
        history="in its last healthy whole step",
        no_spans=missing or Words.no_spans,
        more="the list of this processor has them all",
        back=(_LIST, "All incidents and steps of this processor"),
    )
    return render_html(
        report,
        None if spans is None else classify(spans)[0],
        None if healthy is None else classify(healthy)[0],
        words=words,
    )
