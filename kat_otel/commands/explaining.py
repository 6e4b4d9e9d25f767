"""What ``kat explain`` and ``kat analyze --explain`` share: options, asking, the dry run."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from kat_otel.analyzer import with_diagnoses
from kat_otel.analyzer.context import context_of
from kat_otel.analyzer.endpoint import Client, Endpoint, body
from kat_otel.analyzer.explain import Explained, Policy, explain, request_of
from kat_otel.analyzer.send import EVERYTHING, parts
from kat_otel.errors import ConfigError
from kat_otel.report.sentences import by_impact
from kat_otel.verdict import Report

__all__ = ["Asking", "asking", "dry_run", "explained", "explaining_options"]

Command = TypeVar("Command", bound=Callable[..., Any])

_KEY: Final = "KAT_ANALYZER_KEY"
_PROBE: Final = (
    "# First, once: a probe with a random word and no fact, which tells whether the server keeps\n"
    "# to schemas. To one that doesn't, the schema goes in the system message instead. An answer\n"
    "# that is not grounded is sent back once, with what was wrong with it."
)
_NOBODY: Final = "http://localhost/v1"


@dataclass(frozen=True, slots=True)
class Asking:
    """Whom to ask, how, and about how many incidents; ``endpoint`` is None to ask nobody."""

    endpoint: Endpoint | None
    policy: Policy
    incidents: int


def explaining_options(command: Command) -> Command:
    """Adds the options that say which model is asked, and what may leave for it."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Print what would be sent, and send nothing."),
        click.option(
            "--incidents",
            type=click.IntRange(1, 100),
            default=3,
            show_default=True,
            help="How many incidents are explained, the costliest first.",
        ),
        click.option(
            "--send",
            default=",".join(sorted(EVERYTHING)),
            show_default=True,
            help="What may leave beside the facts of traces; 'none' for nothing. Names never do.",
        ),
        click.option("--no-prose", is_flag=True, help="The model writes no sentences: it chooses."),
        click.option(
            "--deadline",
            type=click.FloatRange(1, 3600),
            default=120.0,
            show_default=True,
            help="Seconds for one incident; after that the embedded diagnosis stands.",
        ),
        click.option("--insecure", is_flag=True, help="Allow plain HTTP to another machine."),
        click.option(
            "--key-file",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help=f"File with the endpoint's key; without it the variable {_KEY} counts.",
        ),
        click.option("--model", help="Name of the model at the endpoint."),
        click.option(
            "--endpoint",
            help="OpenAI-compatible endpoint with its /v1; without one the embedded knowledge "
            "explains.",
        ),
    ):
        command = option(command)
    return command


def asking(
    *,
    endpoint: str | None,
    model: str | None,
    key_file: Path | None,
    insecure: bool,
    deadline: float,
    no_prose: bool,
    send: str,
    incidents: int,
    dry_run: bool,
) -> Asking:
    """Returns what the options amount to.

    Raises:
        ConfigError: an endpoint without a model or the reverse, or one of them can't be used.
    """
    if (endpoint is None) != (model is None) and not dry_run:
        raise ConfigError("--endpoint and --model belong together: name both, or neither")
    policy = Policy(send=parts(send.split(",")), prose=not no_prose, deadline_s=deadline)
    if endpoint is None and not dry_run:
        return Asking(None, policy, incidents)
    key = os.environ.get(_KEY, "") if key_file is None else key_file.read_text("utf-8")
    end = Endpoint(
        endpoint or _NOBODY,
        model or "MODEL",
        key.strip(),
        insecure=insecure,
        timeout_s=min(deadline, 600.0),
    )
    return Asking(end, policy, incidents)


def explained(report: Report, how: Asking) -> list[Explained]:
    """Fills the diagnoses of a report; says on standard error what asking a model came to."""
    with_diagnoses(report)
    if how.endpoint is None:
        return []
    results = asyncio.run(_asked(report, how, how.endpoint))
    taken = sum(result.diagnosis.mode == "model" for result in results)
    tokens = sum(r.tokens.prompt for r in results), sum(r.tokens.completion for r in results)
    sys.stderr.write(
        f"kat: {taken} of {len(results)} explained by the model, "
        f"{tokens[0]:,} tokens sent, {tokens[1]:,} received, "
        f"{sum(result.seconds for result in results):.1f} s\n"
    )
    counts = Counter(reason for result in results for reason in result.why_not)
    if counts:
        said = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
        sys.stderr.write(f"kat: not taken: {said}\n")
    for error in dict.fromkeys(result.error for result in results if result.error):
        sys.stderr.write(f"kat: {error}\n")
    return results


def dry_run(report: Report, how: Asking, *, as_json: bool) -> str:
    """Returns what would be posted about each incident, word for word, and nothing else is."""
    context = context_of(report)
    end = how.endpoint or Endpoint(_NOBODY, "MODEL")
    bodies: list[dict[str, Any]] = []
    out: list[str] = []
    for incident in by_impact(report)[: how.incidents]:
        pack, messages, schema = request_of(incident, context, "json_schema", policy=how.policy)
        if pack.why_not:
            out.append(f"# incident {incident.id}: nothing is sent, {pack.why_not}\n")
            continue
        request = body(end, messages, schema, "json_schema")
        bodies.append(request)
        said = [f"# incident {incident.id}: POST {end.url.rstrip('/')}/chat/completions"]
        said += [
            f"# evidence pack of at most {pack.tokens:,} tokens, {pack.left_out} facts left out"
        ]
        said += [f"--- {message['role']}\n{message['content']}" for message in messages]
        rest = {name: value for name, value in request.items() if name != "messages"}
        said += [f"--- the rest of the request\n{_json(rest)}"]
        out.append("\n".join(said) + "\n")
    if as_json:
        return _json(bodies) + "\n"
    if bodies:
        out.insert(0, f"{_PROBE}\n")
    return "\n".join(out) or "# no incident: nothing is sent\n"


async def _asked(report: Report, how: Asking, endpoint: Endpoint) -> list[Explained]:
    client = Client(endpoint)
    context = context_of(report)
    results: list[Explained] = []
    try:
        for incident in by_impact(report)[: how.incidents]:
            result = await explain(incident, context, client, policy=how.policy)
            incident.diagnosis = msgspec.to_builtins(result.diagnosis)
            results.append(result)
    finally:
        await client.close()
    return results


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
