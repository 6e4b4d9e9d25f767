"""The report ``kat.report/v1`` for people: text for the terminal, one page for the browser."""

from kat_otel.report.html import render_html
from kat_otel.report.text import print_text, render_text

__all__ = ["print_text", "render_html", "render_text"]
