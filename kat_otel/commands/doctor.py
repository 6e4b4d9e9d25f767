"""``kat doctor``: what is missing here, and the command that mends it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kat_otel.finding import Finding, State
from kat_otel.instrumentation.doctor import examine_worker
from kat_otel.processor.doctor import examine

__all__ = ["doctor"]

_FAILED: Final = 1
_STYLES: Final[dict[State, str]] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@click.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings to check with; without it the defaults of kat process.",
)
@click.option(
    "--worker",
    is_flag=True,
    help="Look at what a worker needs here, by this environment, instead of the processor.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the answer.",
)
def doctor(config_file: Path | None, worker: bool, form: str) -> int:
    """See what is reachable, what is missing, and how to mend it.

    Looks at the settings, Python and its packages, the array backend, compiled code, memory,
    clock, ports, the endpoint (by empty OTLP requests), the write-ahead log and its disk. With
    --worker at the capture library, driver, NVML, CUPTI, other profilers and both endpoints.

    Exit code: 0 all is well or could be better, 1 something must be mended.
    """
    if worker and config_file is not None:
        raise click.UsageError("--worker reads the environment: it goes without --config")
    findings = examine_worker(os.environ) if worker else examine(config_file)
    if form == "json":
        found = list(findings)
        well = not _failed(found)
        document = {"ok": well, "findings": [asdict(finding) for finding in found]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        found = _show(findings)
    else:
        found = _print(findings)
    return _FAILED if _failed(found) else 0


def _failed(findings: Iterable[Finding]) -> bool:
    return any(finding.state == "fail" for finding in findings)


def _print(findings: Iterable[Finding]) -> list[Finding]:
    """Prints a line a finding as soon as it is known, for files and pipes."""
    found: list[Finding] = []
    for finding in findings:
        found.append(finding)
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        line = f"{finding.state:<4}  {finding.topic}: {finding.detail}{remedy}"
        click.echo(" ".join(line.splitlines()))
    return found


def _show(findings: Iterable[Finding]) -> list[Finding]:
    """Draws a table for a person at a terminal."""
    console = Console(highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("looked at", style="bold", overflow="fold")
    table.add_column("found", overflow="fold")
    found: list[Finding] = []
    with console.status("looking") as status:
        for finding in findings:
            found.append(finding)
            status.update(f"looked at {finding.topic}")
            text = Text(finding.detail)
            if finding.remedy:
                text.append(f"\n-> {finding.remedy}", style=_STYLES[finding.state])
            mark = Text(finding.state, style=_STYLES[finding.state])
            table.add_row(mark, Text(finding.topic), text)
    console.print(table)
    worst = [finding for finding in found if finding.state != "ok"]
    if not worst:
        console.print("All is well.", style="green")
    return found
