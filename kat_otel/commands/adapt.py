"""``kat adapt``: examples with a known truth, and how right rules and models are on them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import click

from kat_otel.adapt.cases import from_traces, simulated
from kat_otel.adapt.examples import SPLITS, Example, Split, make
from kat_otel.adapt.files import read_split, write
from kat_otel.adapt.scores import Said
from kat_otel.adapt.solvers import (
    by_constant,
    by_first,
    by_model,
    by_rules,
    most_frequent,
    shown_examples,
)
from kat_otel.adapt.tables import table
from kat_otel.analyzer.endpoint import Client, Endpoint
from kat_otel.analyzer.prompt import Message
from kat_otel.commands.adapt_training import export_command, train_command
from kat_otel.errors import ConfigError

__all__ = ["adapt"]

_KEY: Final = "KAT_ANALYZER_KEY"
_TESTS: Final = tuple(split for split in SPLITS if split.startswith("test_"))


@click.group()
def adapt() -> None:
    """Adapt a model to explain incidents, and see how right it is."""


adapt.add_command(train_command)
adapt.add_command(export_command)


@adapt.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="adapt-data",
    show_default=True,
    help="Folder for a file a split, and the card that says what they are.",
)
@click.option(
    "--examples",
    "count",
    type=click.IntRange(60, 20_000),
    default=600,
    show_default=True,
    help="Examples to train on; each of the other splits has a sixth of it.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--traces",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of real traces to put faults into, for a test split of its own.",
)
def data(out: Path, count: int, seed: int, traces: Path | None) -> None:
    """Make examples from the simulator and from faults put into real traces.

    The same options make the same files. Takes about a second for four examples.
    """
    real = from_traces(traces) if traces else []
    if traces and not real:
        raise ConfigError(
            f"{traces}: has neither dlrm_8rank nor vllm_gptoss_b200_tp8_rank0 — leave --traces out"
        )
    made = make([simulated(), *real], count, seed)
    command = f"kat adapt data --examples {count} --seed {seed}" + (
        f" --traces {traces.name}" if traces else ""
    )
    write(made, out, command=command)
    sizes = [sum(e.split == split for e in made.examples) for split in SPLITS]
    said = ", ".join(f"{split} {size}" for split, size in zip(SPLITS, sizes, strict=True))
    click.echo(f"{out}: {said}; what they are: {out / 'CARD.md'}")


@adapt.command()
@click.option(
    "--data",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default="adapt-data",
    show_default=True,
    help="What `kat adapt data` wrote.",
)
@click.option(
    "--endpoint", help="OpenAI-compatible endpoint with its /v1; without one: rules alone."
)
@click.option("--model", help="Name of the model at the endpoint.")
@click.option("--insecure", is_flag=True, help="Allow plain HTTP to another machine.")
@click.option(
    "--show",
    type=click.IntRange(0, 8),
    default=0,
    show_default=True,
    help="Also ask with this many solved examples in the prompt.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Ask at most so many of each split.")
@click.option(
    "--split",
    "splits",
    type=click.Choice(_TESTS),
    multiple=True,
    default=_TESTS,
    help="Which to ask; all test splits unless given.",
)
def evaluate(
    folder: Path,
    *,
    endpoint: str | None,
    model: str | None,
    show: int,
    limit: int | None,
    splits: tuple[str, ...],
    insecure: bool,
) -> None:
    """Score the embedded rules, predictors that read nothing, and a model, side by side."""
    if (endpoint is None) != (model is None):
        raise ConfigError("--endpoint and --model belong together: name both, or neither")
    train = read_split(folder, "train")
    if not train:
        raise ConfigError(f"{folder}: no examples to train on — make them: kat adapt data")
    usual = most_frequent(train)
    results: dict[tuple[str, str], Sequence[Said]] = {}
    for split in splits:
        asked = read_split(folder, cast("Split", split))[:limit]
        if not asked:
            continue
        results[split, "embedded rules"] = [by_rules(one) for one in asked]
        results[split, f"always {usual}"] = [by_constant(one, usual) for one in asked]
        results[split, "always the first cause"] = [by_first(one) for one in asked]
        if endpoint and model:
            key = os.environ.get(_KEY, "")
            end = Endpoint(endpoint, model, key, insecure=insecure, timeout_s=300.0)
            results[split, model] = asyncio.run(_answers(asked, end, ()))
            if show:
                turns = shown_examples(train, show)
                name = f"{model}, {show} examples shown"
                results[split, name] = asyncio.run(_answers(asked, end, turns))
    click.echo(table(results), nl=False)


async def _answers(
    asked: Sequence[Example], endpoint: Endpoint, shown: Sequence[Message]
) -> list[Said]:
    client: Any = Client(endpoint)
    try:
        return [await by_model(one, client, shown) for one in asked]
    finally:
        await client.close()
