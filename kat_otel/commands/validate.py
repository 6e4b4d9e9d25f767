"""``kat validate``: is this configuration file right, and what does it amount to?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kat_otel.errors import ConfigError
from kat_otel.processor.config_file import load_config
from kat_otel.processor.defaults import with_defaults
from kat_otel.processor.effective import effective_yaml

__all__ = ["validate"]


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to check; the same as FILE.",
)
@click.option("--quiet", is_flag=True, help="Print one line rather than all settings.")
def validate(file: Path | None, config_file: Path | None, *, quiet: bool) -> None:
    """Check the settings of kat process without starting it.

    Prints the settings as they would be in force, with the defaults of kat process and without
    secrets.

    Exit code 0: right; 2: wrong, with the line of everything that is.
    """
    path = file or config_file
    if path is None or (file and config_file):
        raise click.UsageError("name one file: kat validate FILE")
    try:
        config, filled = with_defaults(load_config(path))
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    where = config.exporter.endpoint or "nowhere"
    click.echo(f"# {path}: right; receives on {config.receiver.endpoint}, exports to {where}")
    if quiet:
        return
    if filled:
        click.echo(f"# not in the file, filled in by kat process: {', '.join(sorted(filled))}")
    click.echo(effective_yaml(config), nl=False)
