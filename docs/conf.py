"""How the site is built: ``make docs``, with every warning an error."""

from __future__ import annotations

import logging
import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "KAT-OTel"
author = "the KAT-OTel authors"
version = release = metadata.version("kat-otel")
html_title = "KAT-OTel"

extensions = ["myst_parser", "pages_from_code", "pages_from_repository"]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # what GitHub's own anchors allow, so that links work in both places
myst_url_schemes = ["http", "https", "mailto"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "sidebar_hide_name": False,
    "light_css_variables": {
        "color-brand-primary": "#b3261e",
        "color-brand-content": "#0b5cad",
        "font-stack": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
        "font-stack--monospace": "ui-monospace, 'SF Mono', Menlo, Consolas, monospace",
    },
    "dark_css_variables": {
        "color-brand-primary": "#ff8a80",
        "color-brand-content": "#7cb8ff",
    },
}

# `make docs-links` asks the internet; the links within the site are checked by every build.
linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_workers = 4
linkcheck_ignore = [r"https?://(localhost|127\.0\.0\.1|collector|kat)\b.*"]

# Places in the front page's lists are kept for pages that are still being written: a pattern may
# match none. Sphinx gives that warning a subtype and no type, so `suppress_warnings` cannot name
# it. A page that no place takes is still an error.
logging.getLogger("sphinx.sphinx.directives.other").addFilter(
    lambda record: getattr(record, "subtype", None) != "empty_glob"
)
