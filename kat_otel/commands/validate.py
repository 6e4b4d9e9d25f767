"""``kat validate``: is this configuration file right?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from kat_otel.errors import ConfigError
from kat_otel.processor.config_file import load_config

__all__ = ["validate"]


@click.command()
@click.option(
    "--config",
    "config_file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file to check.",
)
def validate(config_file: Path) -> None:
    """Check the settings of kat process without starting it.

    Exit code 0: right; 2: wrong, with the line of everything that is.
    """
    try:
        config = load_config(config_file)
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    where = config.exporter.endpoint or "nowhere"
    click.echo(f"{config_file}: right; receives on {config.receiver.endpoint}, exports to {where}")
