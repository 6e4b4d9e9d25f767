"""``kat silence``: incidents that an operator wants no pages of for a while."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import quote

import click
import msgspec

from kat_otel.commands.asking import RefusedError, Server, control_options, operator
from kat_otel.commands.unspoken import Unspoken
from kat_otel.operators import MAX_SILENCE_S, Silence
from kat_otel.report.sentences import printable
from kat_otel.verdict import Component, Kind

__all__ = ["duration", "say_silence", "silence"]

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def duration(text: str) -> float:
    """Returns the seconds of a duration, written as 90s, 30m, 2h, 1d or 1h30m.

    Raises:
        click.BadParameter: it is none, or no silence may last as long.
    """
    if not re.fullmatch(r"(?:\d+(?:\.\d+)?[smhd])+", text):
        raise click.BadParameter(f"{text!r} is no duration: write it as 30m, 2h or 1d")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not 0 < seconds <= MAX_SILENCE_S:
        raise click.BadParameter(f"{text} is not more than nothing and at most 30d")
    return seconds


@click.group(
    cls=Unspoken,
    unspoken="add",
    subcommand_metavar="[INCIDENT] [OPTIONS] | list | end ID",
)
def silence() -> None:
    """Keep incidents from paging for a while.

    \b
    kat silence 3fa90c --for 2h --reason "known, ticket 4711"
    kat silence --instance llama-70b --rank 5 --for 1d
    kat silence list
    kat silence end 1f2e3d4c

    They are followed and exported as ever, but are no pages. `kat silence add --help` tells all
    options.
    """  # noqa: D301 - the backslash is click's own sign


@silence.command()
@click.argument("incident", required=False)
@click.option("--instance", help="Incidents of this kat.instance.id.")
@click.option("--kind", type=click.Choice(get_args(Kind)), help="Incidents of this kind.")
@click.option(
    "--component", type=click.Choice(get_args(Component)), help="Incidents of this component."
)
@click.option(
    "--rank",
    "ranks",
    type=click.IntRange(min=0),
    multiple=True,
    help="Incidents whose culprits are this rank alone; repeated: are all among these.",
)
@click.option(
    "--for",
    "seconds",
    type=duration,
    default="2h",
    show_default=True,
    help="How long, at most 30d.",
)
@click.option("--reason", default="", help="Why; shown wherever the incident is.")
@click.option("--by", default="", help="Who; USER@HOST if not given.")
@control_options
def add(  # noqa: PLR0917 - click hands the options over by name
    incident: str | None,
    instance: str | None,
    kind: str | None,
    component: str | None,
    ranks: tuple[int, ...],
    seconds: float,
    reason: str,
    by: str,
    endpoint: str,
    token_file: Path | None,
    ca_file: Path | None,
) -> None:
    """Silence INCIDENT (its id, or the first digits), or all of which the options hold.

    An incident that is resolved and seen again is another one: name instance and rank to silence
    that too.
    """
    said = {
        "incident": incident,
        "instance": instance,
        "kind": kind,
        "component": component,
        "ranks": ranks or None,
    }
    said = {name: value for name, value in said.items() if value is not None}
    if not said:
        raise click.UsageError(
            "name an incident, or at least one of --instance, --kind, --component, --rank"
        )
    server = Server(endpoint, "control", token_file, ca_file)
    said |= {"seconds": seconds, "reason": reason, "by": by or operator()}
    say_silence(server.ask_json("POST", "/v1/silences", said))


@silence.command("list")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text")
@control_options
def list_silences(form: str, endpoint: str, token_file: Path | None, ca_file: Path | None) -> None:
    """List the silences in force, the one that ends first at the top."""
    found = Server(endpoint, "control", token_file, ca_file).ask_json("GET", "/v1/silences")
    if form == "json":
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    silences = [_silence(one) for one in found["silences"]]
    for one in silences:
        who = f" by {printable(one.by)}" if one.by else ""
        why = f": {printable(one.reason)}" if one.reason else ""
        click.echo(
            f"{one.id}  until {moment_text(one.end_unix_nano)}  {printable(one.target)}{who}{why}"
        )
    if not silences:
        click.echo("no silence is in force", err=True)


@silence.command()
@click.argument("silence_id", metavar="ID")
@control_options
def end(silence_id: str, endpoint: str, token_file: Path | None, ca_file: Path | None) -> None:
    """End the silence ID before its time."""
    server = Server(endpoint, "control", token_file, ca_file)
    path = f"/v1/silences/{quote(silence_id, safe='')}?by={quote(operator(), safe='')}"
    ended = _silence(server.ask_json("DELETE", path)["silence"])
    click.echo(f"ended {ended.id}: {printable(ended.target)}")


def say_silence(answer: dict[str, Any]) -> None:
    """Prints what a silence that was just made does."""
    made = _silence(answer["silence"])
    count = int(answer["count"])
    now = f"{count} live incident{'' if count == 1 else 's'}"
    click.echo(
        f"silenced {printable(made.target)} until {moment_text(made.end_unix_nano)}: {now} now "
        f"(end it with kat silence end {made.id})"
    )


def moment_text(unix_ns: int) -> str:
    """Returns a moment as a person reads it."""
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _silence(said: Any) -> Silence:
    try:
        return msgspec.convert(said, Silence)
    except msgspec.ValidationError as error:
        raise RefusedError(f"the answer is no silence of this version: {error}") from error
