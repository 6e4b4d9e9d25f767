"""``kat rules``: writes Prometheus' rules, or tells whether files are up to date."""

from __future__ import annotations

from pathlib import Path

import click

from kat_otel.commands.making import make
from kat_otel.rules.budget import BUDGET
from kat_otel.rules.files import files

__all__ = ["rules"]


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("kat-rules"),
    show_default=True,
    help="The folder to write into.",
)
@click.option(
    "--budget",
    type=click.FloatRange(0.0001, 0.1),
    default=BUDGET,
    show_default=True,
    help="Share of an instance's GPU time that may be lost: 0.01 is 1 %.",
)
@click.option("--check", is_flag=True, help="Write nothing: tell which files are out of date.")
def rules(out: Path, budget: float, *, check: bool) -> None:
    """Write Prometheus' recording and alerting rules.

    Exit code 0: written, or with --check all up to date; 1: with --check, some are not; 2: they
    could not be written.
    """
    again = "" if budget == BUDGET else f" --budget {budget:g}"
    make(files(budget), out, command=f"kat rules{again}", check=check)
