"""``kat capture``: an operator asks all ranks of an instance for the same whole steps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import click

from kat_otel.commands.asking import RefusedError, Server, control_options, operator
from kat_otel.errors import UnreachableError

__all__ = ["capture"]


@click.command()
@click.argument("instance")
@control_options
def capture(instance: str, endpoint: str, token_file: Path | None, ca_file: Path | None) -> None:
    """Ask all ranks of INSTANCE (its kat.instance.id) for the same whole steps.

    Sent are those that their flight recorders still hold, and some that are to come; they show
    up where the traces go. A finding on digests asks by itself.

    Exit code 0: they are being asked; 1: they are not, and why.
    """
    server = Server(endpoint, "control", token_file, ca_file)
    try:
        said = server.ask_json("POST", "/v1/captures", {"instance": instance, "who": operator()})
    except (RefusedError, UnreachableError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    first, last = cast(list[int], said["recorded"])
    begin, end = cast(list[int], said["next"])
    recorded = f"recorded steps {first} to {last}, and " if first <= last else ""
    click.echo(f"asked {instance} for {recorded}steps {begin} to {end} (request {said['id']})")
