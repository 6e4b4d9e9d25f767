"""``kat dashboards``: writes the Grafana dashboards, or tells whether files are up to date."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import click

from kat_otel.errors import KatError

__all__ = ["dashboards"]

_SDK = "grafana_foundation_sdk"


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("kat-dashboards"),
    show_default=True,
    help="The folder to write into.",
)
@click.option("--check", is_flag=True, help="Write nothing: tell which files are out of date.")
def dashboards(out: Path, *, check: bool) -> None:
    """Write the Grafana dashboards: fleet, instance, incident, processor.

    Exit code 0: written, or with --check all up to date; 1: with --check, some are not; 2: they
    could not be written.
    """
    if find_spec(_SDK) is None:
        raise KatError(
            "the dashboards are made with Grafana's SDK, which is not installed: "
            "pip install 'kat-otel[processor,dashboards]'"
        )
    # not at the top: kat --help and this message need no SDK
    from kat_otel.dashboards.files import differing, write  # noqa: PLC0415

    if not check:
        for file in write(out):
            click.echo(file)
        return
    stale = differing(out)
    for file in stale:
        click.echo(f"out of date: {file} -> kat dashboards --out {out}", err=True)
    if stale:
        sys.exit(1)
    click.echo(f"{out}: up to date")
