"""``kat lmdia``: the benchmark's cases made, judged, compared and looked at."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kat_otel.errors import ConfigError
from kat_otel.lmdia.dataset.card import card
from kat_otel.lmdia.dataset.collection import SEED, cases_of, sources
from kat_otel.lmdia.dataset.files import has_case, write_case
from kat_otel.lmdia.dataset.plan import SIZES, Case, Size
from kat_otel.lmdia.dataset.play import play
from kat_otel.lmdia.dataset.played import CannotPlayError
from kat_otel.lmdia.evaluation.comparison import compare as compared
from kat_otel.lmdia.evaluation.explain import explained
from kat_otel.lmdia.evaluation.methods import TTAD
from kat_otel.lmdia.evaluation.plots import false_alarms, severity_against_recall
from kat_otel.lmdia.evaluation.records import Record, read_records
from kat_otel.lmdia.evaluation.run import evaluate as evaluated
from kat_otel.lmdia.evaluation.work import Work
from kat_otel.lmdia.tasks.task import Split
from kat_otel.made_files import put_between, write

__all__ = ["lmdia"]

_SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")
_Item = TypeVar("_Item")

_size = click.option(
    "--size",
    type=click.Choice(list(SIZES)),
    default="standard",
    show_default=True,
    help="How many cases a task has; a sample has the two smallest tasks alone.",
)
_split = click.option(
    "--split",
    "splits",
    type=click.Choice(_SPLITS),
    multiple=True,
    help="Tasks of this split; all if not given. May be given again.",
)
_traces = click.option(
    "--traces",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of real traces, to put the same faults into.",
)
_seed = click.option("--seed", type=click.IntRange(min=0), default=SEED, show_default=True)
_task = click.option(
    "--task", "only", multiple=True, metavar="NAME", help="One task alone, by its name."
)
_scenario = click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="NAME",
    help="One fault, confounder or `healthy` alone, by its name.",
)
_jobs = click.option(
    "--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes."
)


@click.group()
def lmdia() -> None:
    """Make and judge an open benchmark of anomalies in distributed inference."""


@lmdia.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="lmdia",
    show_default=True,
    help="Folder for a folder a case, and the card that says what they are.",
)
@_size
@_split
@_task
@_scenario
@_traces
@_seed
@click.option("--parquet/--no-parquet", default=True, help="Whether to write tables as well.")
def generate(
    *,
    out: Path,
    size: Size,
    splits: tuple[Split, ...],
    only: tuple[str, ...],
    scenarios: tuple[str, ...],
    traces: Path | None,
    seed: int,
    parquet: bool,
) -> None:
    """Write cases: traces (OTLP and Parquet), metrics, logs and the truth.

    The same options make the same cases. What is whole in the folder is not made again.
    """
    cases = _chosen(
        size=size, splits=splits, only=only, scenarios=scenarios, traces=traces, seed=seed
    )
    left_out: list[str] = []
    for case in _shown(cases, "making cases", len(cases)):
        folder = out / case.split / case.name
        if has_case(folder):
            continue
        try:
            write_case(play(case, sources(traces)), folder, parquet=parquet)
        except CannotPlayError as error:
            left_out.append(str(error))
    write(card(cases, size, seed), out)
    made = len(cases) - len(left_out)
    megabytes = sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) / 1e6
    click.echo(f"{out}: {made} cases, {megabytes:.1f} MB; what they are: {out / 'CARD.md'}")
    if left_out:
        click.echo(f"{len(left_out)} left out, since the step's slack hides the fault", err=True)


@lmdia.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="lmdia.jsonl",
    show_default=True,
    help="What was said, a line a case; goes on from what is there.",
)
@_size
@_split
@_task
@_scenario
@_traces
@_seed
@_jobs
@click.option(
    "--opponents/--no-opponents", default=True, show_default=True, help="Run other methods too."
)
@click.option(
    "--ablations/--no-ablations",
    default=False,
    show_default=True,
    help="Run TTAD without each of its parts too (takes about five times as long).",
)
@click.option("--full", is_flag=True, help="The size full, ablations and all: takes hours.")
def evaluate(
    *,
    out: Path,
    size: Size,
    splits: tuple[Split, ...],
    only: tuple[str, ...],
    scenarios: tuple[str, ...],
    traces: Path | None,
    seed: int,
    jobs: int,
    opponents: bool,
    ablations: bool,
    full: bool,
) -> None:
    """Play cases and judge each step by TTAD and by other methods, side by side.

    Nothing is written but what was said: a case is played a step at a time.
    """
    cases = _chosen(
        size="full" if full else size,
        splits=splits,
        only=only,
        scenarios=scenarios,
        traces=traces,
        seed=seed,
    )
    work = Work(traces, ablations=ablations or full, opponents=opponents)
    records = evaluated(cases, out, work, jobs=jobs)
    found: list[Record] = list(_shown(records, "judging cases", len(cases)))
    judged = [r.outcomes[TTAD] for r in found if not r.refused]
    faults = [f for o in judged for f in o.faults]
    click.echo(
        f"{out}: {len(judged)} cases judged, {len(found) - len(judged)} left out; "
        f"{sum(f.found for f in faults)} of {len(faults)} faults found, "
        f"{sum(o.false for o in judged)} false alarms; tables: kat lmdia compare {out}"
    )


@lmdia.command()
@click.argument("records", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--docs",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Write the tables into benchmark.md in this folder, and the plots into images/.",
)
def compare(records: Path, docs: Path | None) -> None:
    """Say how right each method was: tables by scenario, severity and method, and plots."""
    found = compared(read_records(records))
    if docs is None:
        click.echo(found.text)
        return
    page = docs / "benchmark.md"
    put_between(page, "figures", found.text)
    images = docs / "images"
    images.mkdir(exist_ok=True)
    severity_against_recall(found.methods, images / "benchmark-severity.svg")
    if found.curves:
        false_alarms(found.curves, images / "benchmark-false-alarms.svg")
    click.echo(f"{page}: written, with its plots")


@lmdia.command()
@click.argument("name", metavar="CASE")
@_traces
@_seed
def explain(name: str, traces: Path | None, seed: int) -> None:
    """Play one case: what is true, what TTAD said, and which alarm was right."""
    cases = {case.name: case for case in cases_of("full", _SPLITS, traces=traces, seed=seed)}
    case = cases.get(name)
    if case is None:
        near = [n for n in cases if n.startswith(name.split(".", maxsplit=1)[0])][:3]
        raise ConfigError(f"{name}: no case of the benchmark; some are {', '.join(near or cases)}")
    for line in explained(case, play(case, sources(traces))):
        click.echo(line)


def _chosen(
    *,
    size: Size,
    splits: tuple[Split, ...],
    only: tuple[str, ...],
    scenarios: tuple[str, ...],
    traces: Path | None,
    seed: int,
) -> list[Case]:
    known = sources(traces)
    for name in only:
        if name not in known:
            raise ConfigError(f"--task {name}: there is none; one is {next(iter(known))}")
    cases = cases_of(size, splits or _SPLITS, traces=traces, seed=seed, only=only)
    planned = {case.scenario for case in cases}
    for name in scenarios:
        if name not in planned:
            raise ConfigError(
                f"--scenario {name}: no case chosen has it; they have {', '.join(sorted(planned))}"
            )
    return [case for case in cases if not scenarios or case.scenario in scenarios]


def _shown(items: Iterable[_Item], what: str, count: int) -> Iterable[_Item]:
    """Yields the items beside a bar that says how many are done."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as shown:
        yield from shown.track(items, total=count)
