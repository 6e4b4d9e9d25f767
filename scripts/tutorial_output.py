"""Puts what the commands of some pages really print into them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = (REPOSITORY / "docs" / "tutorial.md", REPOSITORY / "docs" / "incident.md")
FOLDERS = {"dlrm_8rank": "dlrm_8rank", "two_h100": "nsys_h100_2gpu_mfu_before"}
"""A trace's name on the pages -> its folder."""
TRACES = Path(os.environ.get("KAT_TRACES") or REPOSITORY.parent / "shared" / "traces")
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)
KAT = f'#!/bin/sh\nexec "{sys.executable}" -m kat_otel "$@"\n'


def renewed(page: str, traces: Path) -> str:
    """Returns the page with the output of every ``$ command`` as it is now.

    Commands run one after the other in one folder that holds the traces under the names that the
    pages give them.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shown, kept in FOLDERS.items():
            (folder / shown).symlink_to(traces / kept)
        (folder / "kat").write_text(KAT)
        (folder / "kat").chmod(0o755)
        return BLOCK.sub(lambda block: _block(block[0], folder), page)


def _block(text: str, folder: Path) -> str:
    out: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            out += [line, *_printed(line[2:], folder)]
    return "\n".join(out) + "\n"


def _printed(command: str, folder: Path) -> list[str]:
    path = f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # A prompt says nothing of how a command ended, and the page shows one that ends with 1.
    done = subprocess.run(
        ["bash", "-c", command],  # noqa: S607 - the page's own commands, as a reader types them
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return [line.rstrip() for line in done.stdout.splitlines()]


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renewed(page.read_text(), TRACES))
