"""``kat feedback``: an operator says that an incident was right or wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from kat_otel.commands.asking import Server, control_options, operator
from kat_otel.commands.silence import duration, say_silence
from kat_otel.commands.unspoken import Unspoken
from kat_otel.errors import KatError
from kat_otel.report.sentences import printable

__all__ = ["feedback"]

_OFFERED: tuple[str, float] = ("2h", 7_200.0)


@click.group(
    cls=Unspoken,
    unspoken="say",
    subcommand_metavar="INCIDENT (--true | --false) [OPTIONS] | export FILE",
)
def feedback() -> None:
    """Say that an incident was right or wrong, or write what was said as labels.

    \b
    kat feedback INCIDENT --false --note "planned maintenance"
    kat feedback export labels.jsonl

    `kat feedback say --help` and `kat feedback export --help` tell the options.
    """  # noqa: D301 - the backslash is click's own sign


@feedback.command()
@click.argument("incident")
@click.option(
    "--true/--false",
    "verdict",
    default=None,
    help="There was what the incident says, or there was not.",
)
@click.option("--note", default="", help="Why, in your words.")
@click.option("--by", default="", help="Who says so; USER@HOST if not given.")
@click.option(
    "--silence",
    "silence_for",
    type=duration,
    help="Silence the incident as well for this long, such as 2h. A terminal is asked otherwise.",
)
@control_options
def say(  # noqa: PLR0917 - click hands the options over by name
    incident: str,
    verdict: bool | None,
    note: str,
    by: str,
    silence_for: float | None,
    endpoint: str,
    token_file: Path | None,
    ca_file: Path | None,
) -> None:
    """Say that INCIDENT (its id, or the first digits) was right or wrong.

    It is kept with the incident's report, counted, and sent as a log event. A wrong incident may
    be silenced at once.
    """
    if verdict is None:
        raise click.UsageError("say --true or --false: was the incident right?")
    server = Server(endpoint, "control", token_file, ca_file)
    by = by or operator()
    word = "true" if verdict else "false"
    said = server.ask_json(
        "POST", "/v1/feedback", {"incident": incident, "verdict": word, "note": note, "by": by}
    )
    where = printable(str(said["instance"])) or "an instance without a name"
    click.echo(
        f"incident {said['incident']} ({said['kind']}, {said['component']}) of {where} "
        f"is kept as {word}"
    )
    if silence_for is not None:
        _silence(server, said, silence_for, by, note)
    elif not verdict and said["status"] != "resolved" and not said["silenced_until_unix_nano"]:
        _offer(server, said, by, note)


def _offer(server: Server, said: dict[str, Any], by: str, note: str) -> None:
    """Asks a person whether a wrong incident shall be silent; tells a script how to."""
    text, seconds = _OFFERED
    if sys.stdin.isatty() and sys.stdout.isatty():
        if click.confirm(f"Silence it for {text}?"):
            _silence(server, said, seconds, by, note)
    else:
        click.echo(f"to keep it quiet: kat silence {said['incident']} --for {text}")


def _silence(server: Server, said: dict[str, Any], seconds: float, by: str, note: str) -> None:
    wanted = {"incident": said["incident"], "seconds": seconds, "by": by, "reason": note[:1_000]}
    say_silence(server.ask_json("POST", "/v1/silences", wanted))


@feedback.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@control_options
def export(file: Path, endpoint: str, token_file: Path | None, ca_file: Path | None) -> None:
    """Write all that was said to FILE, as labels for the benchmark.

    One JSON object a line (kat.feedback/v1): the verdict, and the incident's report object as it
    was then. FILE is replaced; - is standard output.
    """
    lines = Server(endpoint, "control", token_file, ca_file).ask("GET", "/v1/feedback")
    if str(file) == "-":
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()
        return
    try:
        file.write_bytes(lines)
    except OSError as error:
        raise KatError(
            f"{file}: cannot be written ({error.strerror}) — choose another file"
        ) from error
    count = lines.count(b"\n")
    click.echo(f"wrote {count} label{'' if count == 1 else 's'} to {file}", err=True)
