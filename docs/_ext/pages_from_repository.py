"""Pages of the site that are files of the repository elsewhere, and links between the two.

The pages on collector-config, the chart and so on belong beside what they tell of. They are
copied to ``docs/repository`` (not under version control) before each build, with links mended;
a link from a page of ``docs/`` to one of them leads to the copy.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

__all__ = ["OUTSIDE", "copied", "mended", "setup"]

REPOSITORY: Final = Path(__file__).resolve().parents[2]
DOCS: Final = REPOSITORY / "docs"

OUTSIDE: Final[dict[str, str]] = {
    "collector-config/README.md": "collector",
    "collector-config/backends/README.md": "backends",
    "helm/kat-otel/README.md": "helm",
    "CONTRIBUTING.md": "contributing",
    "CHANGELOG.md": "changelog",
}
"""File of the repository -> name of its page; one that does not exist makes no page."""

_LINK: Final = re.compile(r"(?<=\]\()(?!https?:|mailto:|#|/)([^)#\s]+)(#[^)\s]*)?(?=\))")


def mended(text: str, folder: Path, place: Path) -> str:
    """Returns the text with links that lead where they led, seen from another folder.

    Args:
        text: Markdown.
        folder: where the file lies, from which its links are meant.
        place: folder of its page; the same for pages of ``docs/``.
    """

    def link(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / found[1]))
        anchor = found[2] or ""
        inside = target.relative_to(REPOSITORY).as_posix() if _is_ours(target) else ""
        inside = f"{inside}/README.md" if f"{inside}/README.md" in OUTSIDE else inside
        if inside in OUTSIDE:
            target = DOCS / "repository" / f"{OUTSIDE[inside]}.md"
        elif inside == "README.md":
            target = DOCS / "index.md"
        return Path(os.path.relpath(target, place)).as_posix() + anchor

    return _LINK.sub(link, text)


def copied() -> list[Path]:
    """Writes the copies anew and returns them; one whose file is gone is removed."""
    place = DOCS / "repository"
    place.mkdir(exist_ok=True)
    written: list[Path] = []
    for file, name in OUTSIDE.items():
        source, page = REPOSITORY / file, place / f"{name}.md"
        if not source.exists():
            page.unlink(missing_ok=True)
            continue
        text = mended(source.read_text(encoding="utf-8"), source.parent, place)
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
        written.append(page)
    return written


def _is_ours(target: Path) -> bool:
    return target.is_relative_to(REPOSITORY)


def _mend(app: Any, docname: str, source: list[str]) -> None:
    if not docname.startswith("repository/"):
        folder = Path(app.srcdir, docname).parent
        source[0] = mended(source[0], folder, folder)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", lambda _: copied())
    app.connect("source-read", _mend)
    return {"parallel_read_safe": True}
