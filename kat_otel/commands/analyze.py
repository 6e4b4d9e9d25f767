"""``kat analyze``: trace files in, the culprit out."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import click

from kat_otel.commands.explaining import asking, dry_run, explained, explaining_options
from kat_otel.errors import ConfigError, KatError
from kat_otel.kernels import classify
from kat_otel.processor.config_file import load_config
from kat_otel.readers import ReadResult, read
from kat_otel.report.explanation import render_explanation
from kat_otel.report.html import render_html
from kat_otel.report.perfetto import write_perfetto
from kat_otel.report.text import print_text, render_text
from kat_otel.spans import SpanTable
from kat_otel.ttad import Settings
from kat_otel.ttad import analyze as judge
from kat_otel.verdict import Report, to_json

__all__ = ["analyze"]

_FILES = {"html": "kat-report.html", "perfetto": "kat-report.pftrace"}
"""What nobody wants on a terminal goes to a file."""
_ENDINGS = {".json": "json", ".html": "html", ".htm": "html", ".pftrace": "perfetto"}
_INCIDENT, _UNREAD = 1, 2
_Tables = tuple[SpanTable, SpanTable | None]
"""What was judged, and the healthy recording."""
_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=_PATH)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "html", "perfetto"]),
    help="Form of the report. Default: what the ending of --output says, else text.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    help="File to write. Default: standard output; "
    + ", ".join(f"{file} for {form}" for form, file in _FILES.items())
    + ".",
)
@click.option(
    "--baseline",
    type=_PATH,
    multiple=True,
    help="Healthy recording of the same work to compare with: a file or folder; repeatable.",
)
@click.option(
    "--config",
    type=_PATH,
    help="Settings of the detector: the section `detector` of a kat process configuration.",
)
@click.option("--fail-on-incident", is_flag=True, help="Exit with 1 if there is an incident.")
@click.option(
    "--explain",
    is_flag=True,
    help="Explain in full, and by a model if an --endpoint is named; as kat explain does.",
)
@explaining_options
def analyze(  # noqa: PLR0917 - click hands the options over by name
    paths: tuple[Path, ...],
    form: str | None,
    output: Path | None,
    baseline: tuple[Path, ...],
    config: Path | None,
    fail_on_incident: bool,
    explain: bool,
    **options: Any,
) -> int:
    """Names the culprit in trace files.

    PATHS are files or folders of one recording: PyTorch profiler JSON (a file a rank, plain
    or .gz), Nsight Systems sqlite, or OTLP files of the collector.

    Exit code: 0 done, 1 an incident (with --fail-on-incident), 2 a file could not be read;
    what could be read is reported all the same.
    """
    how = asking(**options)
    if not explain and (options["dry_run"] or how.endpoint is not None):
        raise ConfigError("--endpoint, --model and --dry-run say how to --explain: add that")
    settings = Settings() if config is None else Settings.of(load_config(config).detector)
    taken = read(paths)
    healthy = read(baseline) if baseline else None
    _say_errors(taken)
    if healthy is not None:
        _say_errors(healthy)
    unread = bool(taken.errors) or (healthy is not None and bool(healthy.errors))
    if not taken.files:
        if not taken.errors:
            raise KatError(f"{_said(paths)}: no trace file found — name files, or a folder of them")
        return _UNREAD
    if healthy is not None and not healthy.files:
        raise KatError(
            f"{_said(baseline)}: no healthy recording could be read, so there is nothing to "
            "compare with — name another, or leave --baseline out"
        )
    report = judge(
        taken.table,
        baseline=None if healthy is None else healthy.table,
        files=taken.files,
        notes=[*taken.notes, *_baseline_notes(healthy)],
        settings=settings,
    )
    if options["dry_run"]:
        sys.stdout.write(dry_run(report, how, as_json=form == "json"))
        return _UNREAD if unread else 0
    explained(report, how)
    table, _ = classify(taken.table, settings.collectives)  # the page draws what was judged
    before = None if healthy is None else classify(healthy.table, settings.collectives)[0]
    _write(report, (table, before), form or _form_of(output), output)
    if explain and (form or _form_of(output)) == "text" and output is None:
        sys.stdout.write("\n" + render_explanation(report, how.incidents))
    if unread:
        return _UNREAD
    return _INCIDENT if fail_on_incident and report.incidents else 0


def _said(paths: tuple[Path, ...]) -> str:
    return ", ".join(str(path) for path in paths)


def _say_errors(result: ReadResult) -> None:
    for error in result.errors:
        sys.stderr.write(f"kat: {error}\n")


def _baseline_notes(healthy: ReadResult | None) -> list[str]:
    return [] if healthy is None else [f"baseline: {note}" for note in healthy.notes]


def _form_of(output: Path | None) -> str:
    ending = "" if output is None else output.suffix.lower()
    return _ENDINGS.get(ending, "text")


def _write(report: Report, tables: _Tables, form: str, output: Path | None) -> None:
    if output is None and form in _FILES:
        output = Path(_FILES[form])
    if output is None or str(output) == "-":
        _print(report, tables, form)
        return
    _replace(output, lambda file: _fill(report, tables, form, file))
    sys.stderr.write(f"kat: wrote {output}\n")
    if form == "perfetto":
        sys.stderr.write("kat: open it in ui.perfetto.dev, which keeps it in the browser\n")


def _fill(report: Report, tables: _Tables, form: str, file: IO[bytes]) -> None:
    if form == "perfetto":
        write_perfetto(report, tables[0], file)
    elif form == "json":
        file.write(to_json(report, indent=2) + b"\n")
    else:
        content = render_html(report, *tables) if form == "html" else render_text(report)
        file.write(content.encode())


def _print(report: Report, tables: _Tables, form: str) -> None:
    if form == "text":
        print_text(report, sys.stdout)
    elif form == "json":
        sys.stdout.write(to_json(report, indent=2).decode() + "\n")
    elif form == "html":
        sys.stdout.write(render_html(report, *tables))
    else:
        write_perfetto(report, tables[0], sys.stdout.buffer)


def _replace(path: Path, fill: Callable[[IO[bytes]], None]) -> None:
    """Writes the whole file or leaves the old one: a reader never sees a half."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file)
            # as open() would have made it: mkstemp's files are for their owner alone
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise KatError(
            f"{path}: cannot be written ({error.strerror}) — choose another --output"
        ) from error
