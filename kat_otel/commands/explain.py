"""``kat explain``: why the incidents of a report happen, and what to do; by rules or by a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from kat_otel.commands.explaining import asking, dry_run, explained, explaining_options
from kat_otel.errors import ConfigError
from kat_otel.report.explanation import render_explanation
from kat_otel.verdict import Report, from_json, to_json

__all__ = ["explain"]

_LARGEST = 256 << 20


@click.command()
@click.argument("report", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: the report with the diagnoses in it; with --dry-run, the requests.",
)
@explaining_options
def explain(report: Path, form: str, **options: Any) -> None:
    """Explains the incidents of a report.

    REPORT is what `kat analyze --format json` writes; - is standard input. Without --endpoint the
    embedded knowledge explains, and nothing is sent anywhere.

    Exit code: 0 explained, also where the model's answer was not taken and the embedded diagnosis
    stands in its place; 2 the report could not be read.
    """
    how = asking(**options)
    read = _read(report)
    if options["dry_run"]:
        sys.stdout.write(dry_run(read, how, as_json=form == "json"))
        return
    explained(read, how)
    if form == "json":
        sys.stdout.write(to_json(read, indent=2).decode() + "\n")
    else:
        sys.stdout.write(render_explanation(read, how.incidents))


def _read(path: Path) -> Report:
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with path.open("rb") as file:
                data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ConfigError(
                f"{path}: larger than {_LARGEST >> 20} MiB — explain a smaller report"
            )
        return from_json(data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}) — name a report") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: no kat.report/v1 ({error}) — make one: kat analyze PATH --format json"
        ) from error
