"""``kat replay``: trace files as live OTLP traffic."""

from __future__ import annotations

import secrets
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kat_otel.errors import KatError
from kat_otel.processor.replay import Sent, send_spans, stamp
from kat_otel.readers import read
from kat_otel.spans import SpanTable

__all__ = ["replay"]


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--endpoint",
    default="127.0.0.1:4317",
    show_default=True,
    metavar="HOST:PORT",
    help="OTLP gRPC receiver: a collector's, or kat process itself (4327).",
)
@click.option(
    "--speed",
    default=0.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="1 keeps the original distances between steps, 2 halves them, 0 does not wait.",
)
@click.option("--instance", help="kat.instance.id to send; default: the file's, else its name.")
@click.option(
    "--keep-times",
    is_flag=True,
    help="Send the file's own timestamps; by default they are moved so that it happens now, "
    "where backends and dashboards look.",
)
@click.option(
    "--patience",
    default=10.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds to go on trying while the endpoint is not there or overloaded.",
)
def replay(
    *,
    paths: tuple[Path, ...],
    endpoint: str,
    speed: float,
    instance: str | None,
    keep_times: bool,
    patience: float,
) -> None:
    """Send any readable trace as OTLP spans, rank by rank and step by step.

    Exit code 0: all was taken; 1: the endpoint refused; 2: a file could not be read.
    """
    console = Console(stderr=True)
    found = read(paths)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, style="dim")
    for problem in found.errors:
        console.print(f"error: {problem}", markup=False, style="red")
    if len(found.table) == 0:
        console.print("nothing to send: no file could be read", style="red")
        sys.exit(2)
    named = next((r.instance for r in found.table.resources if r.instance), "")
    name = instance or named or f"replay-{Path(paths[0]).name.partition('.')[0]}"
    table = stamp(found.table, name, secrets.randbits(64), None if keep_times else time.time_ns())
    try:
        sent = _send(console, table, endpoint, speed, patience)
    except KatError as error:
        console.print(f"error: {error}", markup=False, style="red")
        sys.exit(1)
    ranks = len({resource.rank for resource in table.resources})
    console.print(
        f"sent {sent.spans:,} spans of {ranks} ranks to {endpoint} as instance {name}",
        markup=False,
        highlight=False,
    )
    if sent.rejected:
        text = f"error: the endpoint rejected {sent.rejected:,} spans: {sent.reason}"
        console.print(text, markup=False, style="red")
        sys.exit(1)
    if found.errors:
        sys.exit(2)


def _send(console: Console, table: SpanTable, endpoint: str, speed: float, patience: float) -> Sent:
    columns = (TextColumn("sending spans"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("", total=len(table))
        return send_spans(
            table,
            endpoint,
            speed=speed,
            patience=patience,
            progress=lambda sent: shown.update(task, completed=sent.spans + sent.rejected),
        )
