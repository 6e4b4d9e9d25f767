"""Files that the code makes and that are committed: written, or compared with what is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kat_otel.errors import KatError

__all__ = ["differing", "put_between", "write"]


def write(made: Mapping[str, str], folder: Path) -> list[Path]:
    """Writes files into a folder, which is made if it is not there, and returns where they lie.

    Args:
        made: text of each file by its name.
        folder: where to.

    Raises:
        KatError: the folder cannot be written.
    """
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            (folder / name).write_text(text, encoding="utf-8")
            written.append(folder / name)
    except OSError as error:
        raise KatError(
            f"{folder}: the files cannot be written ({error}): name another folder with --out"
        ) from error
    return written


def differing(made: Mapping[str, str], folder: Path) -> list[Path]:
    """Returns the files of a folder that are missing or not as they would be written now."""
    return [
        folder / name
        for name, text in made.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def put_between(page: Path, name: str, text: str) -> None:
    """Replaces what stands between a page's marks ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        KatError: the page has no such marks, or cannot be read or written.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    try:
        whole = page.read_text(encoding="utf-8")
        before, found, rest = whole.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise KatError(f"{page}: has no lines {begin} and {end} to write between")
        made = f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"
        page.write_text(made, encoding="utf-8")
    except OSError as error:
        raise KatError(f"{page}: cannot be read and written ({error.strerror})") from error
