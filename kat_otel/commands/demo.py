"""``kat demo``: see a fault found in less than a minute, without a GPU or a collector."""

from __future__ import annotations

import secrets
from pathlib import Path

import click
from rich.console import Console

from kat_otel.demo.scenario import FAULTS, FaultName, Scenario
from kat_otel.demo.stage import perform
from kat_otel.errors import KatError

__all__ = ["demo"]

_HTML_FILE = "kat-report.html"
_NOT_NAMED = 1


@click.command()
@click.option("--seed", type=click.IntRange(min=0), help="Repeats a demonstration.")
@click.option(
    "--ranks",
    type=click.IntRange(3, 8),
    default=8,
    show_default=True,
    help="Workers, a process each.",
)
@click.option(
    "--fault",
    type=click.Choice(FAULTS),
    help="clock: every kernel of a rank slower; kernel: one kernel twice as long; "
    "launch: the host falls behind. Default: drawn at random.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    default=_HTML_FILE,
    show_default=True,
    help="Where to write the report.",
)
def demo(seed: int | None, ranks: int, fault: FaultName | None, html: Path) -> int:
    """See a fault found: simulated workers, one hidden fault, one named culprit.

    Everything is simulated but the way of the data: each worker is a process that sends OTLP
    to a kat process embedded here. Takes about 20 seconds.

    Exit code: 0 the injected culprit was named and nobody else, 1 not, 2 it could not run.
    """
    console = Console(highlight=False)
    scenario = Scenario.draw(secrets.randbelow(1_000_000) if seed is None else seed, ranks, fault)
    try:
        return 0 if perform(scenario, console, html) else _NOT_NAMED
    except OSError as error:
        raise KatError(f"{html}: the report cannot be written ({error})") from error
