"""The report as one self-contained page: no external resource, nothing that traces can inject.

Three fences stand between a kernel's name and the reader's browser: every value is escaped by
the template engine, made printable before that, and the page's content security policy runs
no script but the one whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kat_otel.report.page import Words, page
from kat_otel.report.page_timeline import embedded_json
from kat_otel.report.sentences import printable
from kat_otel.spans import SpanTable
from kat_otel.verdict import Report, to_json

__all__ = ["render_html"]


def render_html(
    report: Report,
    table: SpanTable | None = None,
    baseline: SpanTable | None = None,
    *,
    words: Words | None = None,
) -> str:
    """Returns the page.

    Args:
        report: the verdict.
        table: the spans it was made from, with collectives classified; None leaves out the
            timeline, the arrivals and the comparison of kernels.
        baseline: the healthy recording it was compared with, with collectives classified.
        words: where its figures are from; of files if None.
    """
    css, script, script_hash = _assets()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            **page(report, table, baseline, words or Words()),
            css=css,
            script=script,
            script_hash=script_hash,
            report_json=embedded_json(to_json(report).decode()),
            version=_version(),
        )
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("kat_otel.report"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: Any) -> Any:
    """Makes every text of the page printable; what is marked as safe is our own."""
    if isinstance(value, Markup):
        return value
    return printable(value) if isinstance(value, str) else value


@lru_cache(maxsize=1)
def _assets() -> tuple[Markup, Markup, str]:
    """Style, script, and the script's hash for the content security policy."""
    folder = resources.files("kat_otel.report") / "templates"
    css = (folder / "report.css").read_text(encoding="utf-8")
    # one script element, so one hash: the drawing, what answers to the reader, the page around
    parts = ("drawing.js", "timeline.js", "page.js")
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in parts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Markup(css), Markup(script), digest  # noqa: S704 - files of this package


def _version() -> str:
    try:
        return version("kat-otel")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "(not installed)"
