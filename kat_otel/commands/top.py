"""``kat top``: the live incidents and ranks of a running ``kat process``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.live import Live as Screen

from kat_otel.commands.asking import RefusedError, Server, debug_options
from kat_otel.errors import KatError, UnreachableError
from kat_otel.live import Live, read_live
from kat_otel.report.top import Picture, render_top

__all__ = ["top"]

_PATH: Final = "/debug/live.json"
_PATIENCE_S: Final = 5.0


@click.command()
@debug_options
@click.option(
    "--interval",
    type=click.FloatRange(min=0.2, max=3_600),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: a line (kat.live/v1) at every look.",
)
@click.option("--once", is_flag=True, help="Look once. Text that is piped does so by itself.")
def top(  # noqa: PLR0917 - click hands the options over by name
    endpoint: str,
    token_file: Path | None,
    ca_file: Path | None,
    interval: float,
    form: str,
    once: bool,
) -> int:
    """Watch a running kat process: live incidents and the latest ranks.

    Reads the debug port. Ends with Ctrl-C; while the processor is away it waits for it. Piped, it
    prints one snapshot as plain text.

    Exit code 0: ended by Ctrl-C, or one look was taken; 2: nobody answers, or no such token.
    """
    server = Server(endpoint, "debug", token_file, ca_file)
    try:
        if form == "json":
            _lines(server, interval, once=once)
        elif once or not sys.stdout.isatty():
            console = Console(highlight=False)
            live = _look(server)
            if console.is_terminal:
                console.print(Picture(live, endpoint))
            else:
                sys.stdout.write(render_top(live, endpoint))
        else:
            _watch(server, interval)
    except KeyboardInterrupt:  # how one leaves it
        return 0
    return 0


def _look(server: Server) -> Live:
    data = server.ask("GET", _PATH, timeout=_PATIENCE_S)
    try:
        return read_live(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RefusedError(
            f"{server.endpoint}{_PATH} is no kat.live/v1 ({error}): is it the debug port of a kat "
            "process of this version?"
        ) from error


def _lines(server: Server, interval: float, *, once: bool) -> None:
    """Prints a JSON line a look. A processor that goes away is said once, and waited for."""
    away = False
    for _ in _every(interval):
        try:
            live = _look(server)
        except UnreachableError as error:
            if once:
                raise
            if not away:
                sys.stderr.write(f"kat: {error} — waiting for it\n")
            away = True
            continue
        away = False
        sys.stdout.write(msgspec.json.encode(live).decode() + "\n")
        sys.stdout.flush()
        if once:
            return


def _watch(server: Server, interval: float) -> None:
    """Draws until interrupted. The last picture stays while the processor is away."""
    live: Live | None = None
    seen_ns = 0
    console = Console(highlight=False)
    with Screen(console=console, screen=True, auto_refresh=False, transient=True) as screen:
        for _ in _every(interval):
            away = ""
            try:
                live, seen_ns = _look(server), time.time_ns()
            except UnreachableError as error:
                away = str(error)
            except KatError as error:
                if live is None:  # a wrong token does not mend itself
                    raise
                away = str(error)
            picture = Picture(
                live, server.endpoint, away=away, now_ns=time.time_ns(), seen_ns=seen_ns
            )
            screen.update(picture, refresh=True)


def _every(seconds: float) -> Iterator[None]:
    """Yields now and then every ``seconds``; what took longer is not made up for."""
    while True:
        due = time.monotonic() + seconds
        yield
        time.sleep(max(0.0, due - time.monotonic()))
