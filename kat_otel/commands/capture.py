"""``kat capture``: an operator asks all ranks of an instance for the same whole steps."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, Final, NoReturn, cast

import click
import urllib3

__all__ = ["capture"]

_TIMEOUT_S: Final = 10.0


@click.command()
@click.argument("instance")
@click.option(
    "--endpoint",
    default="http://127.0.0.1:4329",
    show_default=True,
    help="control.endpoint of kat process, with its scheme.",
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the bearer token; without it the variable KAT_CONTROL_TOKEN counts.",
)
@click.option(
    "--ca-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="PEM file of the authority to trust; the system's if not given.",
)
def capture(instance: str, endpoint: str, token_file: Path | None, ca_file: Path | None) -> None:
    """Ask all ranks of INSTANCE (its kat.instance.id) for the same whole steps.

    Sent are those that their flight recorders still hold, and some that are to come; they show
    up where the traces go. A finding on digests asks by itself.

    Exit code 0: they are being asked; 1: they are not, and why.
    """
    token = token_file.read_text().strip() if token_file else os.environ.get("KAT_CONTROL_TOKEN")
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    url = f"{endpoint.rstrip('/')}/v1/captures"
    try:
        with urllib3.PoolManager(
            ca_certs=str(ca_file) if ca_file else None, retries=False, timeout=_TIMEOUT_S
        ) as pool:
            answer = pool.request(
                "POST", url, body=json.dumps({"instance": instance, "who": who}), headers=headers
            )
    except (urllib3.exceptions.HTTPError, OSError) as error:
        _refused(f"{url} does not answer ({error}): is control.endpoint of kat process this one?")
    if answer.status == 401:
        _refused("the token is missing or wrong: --token-file or KAT_CONTROL_TOKEN")
    try:
        said = cast(dict[str, Any], answer.json())
    except ValueError:
        _refused(f"{url} answered {answer.status} without JSON: is this kat process?")
    if answer.status != 200:
        _refused(str(said.get("error", f"it answered {answer.status}")))
    first, last = cast(list[int], said["recorded"])
    begin, end = cast(list[int], said["next"])
    recorded = f"recorded steps {first} to {last}, and " if first <= last else ""
    click.echo(f"asked {instance} for {recorded}steps {begin} to {end} (request {said['id']})")


def _refused(why: str) -> NoReturn:
    click.echo(f"error: {why}", err=True)
    sys.exit(1)
