"""What ``kat dashboards`` and ``kat rules`` do with the files they make."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from kat_otel.made_files import differing, write

__all__ = ["make"]


def make(made: Mapping[str, str], out: Path, *, command: str, check: bool) -> None:
    """Writes files and names them, or says which are out of date and ends with exit code 1.

    Args:
        made: text of each file by its name.
        out: the folder.
        command: what makes them, to be run again.
        check: write nothing.

    Raises:
        KatError: the folder cannot be written.
    """
    if not check:
        for file in write(made, out):
            click.echo(file)
        return
    stale = differing(made, out)
    for file in stale:
        click.echo(f"out of date: {file} -> {command} --out {out}", err=True)
    if stale:
        sys.exit(1)
    click.echo(f"{out}: up to date")
