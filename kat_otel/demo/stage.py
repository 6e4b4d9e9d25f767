"""Runs a demonstration from the first worker to the last word."""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from kat_otel.config import Config, ExporterConfig, ReceiverConfig
from kat_otel.demo.crew import Crew
from kat_otel.demo.scenario import Scenario
from kat_otel.demo.watch import Judged, Watch
from kat_otel.errors import KatError
from kat_otel.kernels import family
from kat_otel.processor.server import Processor
from kat_otel.report.html import render_html
from kat_otel.report.sentences import culprit_sentence, duration_text, printable
from kat_otel.spans import SpanTable
from kat_otel.verdict import Incident, Report

__all__ = ["DemoStalledError", "perform"]

_GRACE_S = 15.0
"""How much longer than planned all steps may take before the demonstration gives up."""
_SILENCE_S = 0.5
_KERNELS_NAMED = 3
_EVIDENCE_SHOWN = 3


class DemoStalledError(KatError):
    """Not all steps came through in time."""


def perform(scenario: Scenario, console: Console, html: Path) -> bool:
    """Runs the scenario, tells it on the console and writes the report.

    Returns:
        Whether the injected culprit was named and nobody else.

    Raises:
        KatError: a worker or the processor failed, or the steps did not come through in time.
    """
    judged: queue.SimpleQueue[Judged] = queue.SimpleQueue()  # at most one item a step

    def on_report(report: Report, table: SpanTable) -> None:
        judged.put(Judged(report, table, time.time_ns()))

    config = Config(
        receiver=ReceiverConfig(endpoint="127.0.0.1:0"), exporter=ExporterConfig(endpoint=None)
    )
    _say(console, f"Starting {scenario.ranks} workers that decode a 70B-like model (simulated).")
    with (
        Processor(config, on_report=on_report) as processor,
        Crew(scenario, processor.port) as crew,
    ):
        watch = Watch(scenario, crew.start())
        _say(
            console,
            f"They send OTLP to 127.0.0.1:{processor.port}, each from a process of its own. "
            "Half way, something goes wrong on one of them.",
        )
        with _progress(console, scenario) as (progress, task):
            for step in _steps(scenario, judged, crew, processor):
                news = watch.take(step)
                _show_progress(progress, task, watch)
                for incident in news:
                    _show_incident(console, incident, step)
                if watch.early:
                    break
    _reveal(console, watch)
    if watch.shown is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(render_html(watch.shown.report, watch.shown.table), encoding="utf-8")
        _say(console, f"Report: {html}")
    _say(console, f"Once more: kat demo --seed {scenario.seed}")
    return watch.outcome.right


def _steps(
    scenario: Scenario, judged: queue.SimpleQueue[Judged], crew: Crew, processor: Processor
) -> Iterator[Judged]:
    """Yields every step as it is judged; raises if one of the parts fails or nothing comes."""
    deadline = time.monotonic() + scenario.steps * scenario.interval_ms / 1e3 + _GRACE_S
    seen = 0
    while seen < scenario.steps:
        try:
            yield judged.get(timeout=_SILENCE_S)
            seen += 1
        except queue.Empty:
            crew.check()
            processor.wait(0)
        if time.monotonic() > deadline:
            raise DemoStalledError(
                f"only {seen} of {scenario.steps} steps were judged in time — is this machine "
                "busy with something else? Try again, or with fewer --ranks"
            )


@contextmanager
def _progress(console: Console, scenario: Scenario) -> Generator[tuple[Progress, TaskID]]:
    columns = (
        TextColumn("{task.fields[state]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps judged  {task.fields[figures]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield progress, progress.add_task("", total=scenario.steps, state="waiting", figures="")


def _show_progress(progress: Progress, task: TaskID, watch: Watch) -> None:
    scenario = watch.scenario
    state = "[red]incident[/]" if watch.incidents else "[green]healthy[/]"
    elapsed = max(scenario.interval_ms / 1e3, time.time() - watch.begin_ns / 1e9)
    figures = f"step {duration_text(watch.step_ns)}  {watch.spans / elapsed:,.0f} spans/s"
    progress.update(task, completed=watch.steps, state=state, figures=figures)
    if not progress.disable or watch.steps % (scenario.healthy_steps // 2):
        return
    said = "an incident is open" if watch.incidents else "silent"
    _say(progress.console, f"{watch.steps} of {scenario.steps} steps judged, {figures}: {said}")


def _show_incident(console: Console, incident: Incident, step: Judged) -> None:
    if incident.status != "open" and incident.page:
        sentence = culprit_sentence(incident, step.report.source.ranks)
        _say(console, f"PAGE after {incident.occurrences} steps: {sentence}.", "bold red")
        return
    number = step.report.steps[0].step if step.report.steps else incident.steps[-1]
    sentence = culprit_sentence(incident, step.report.source.ranks)
    _say(console, f"INCIDENT in step {number}: {sentence}.", "bold red")
    named = Counter(
        family(span.name) for span in incident.spans if span.rank in incident.culprit.ranks
    )
    kernels = [f"{printable(name)} ({count})" for name, count in named.most_common(_KERNELS_NAMED)]
    confidence = f"{incident.component_confidence:.0%}"
    _say(console, f"  kind       {incident.kind}")
    _say(console, f"  component  {incident.component}, confidence {confidence}")
    _say(console, f"  cost       {duration_text(incident.impact_ns)} per step")
    _say(console, f"  spans      {', '.join(kernels) or 'none of its own'}")
    for evidence in incident.evidence[:_EVIDENCE_SHOWN]:
        _say(console, f"  evidence   {printable(evidence.text)}")


def _reveal(console: Console, watch: Watch) -> None:
    outcome, scenario = watch.outcome, watch.scenario
    _say(
        console,
        f"Injected from step {scenario.healthy_steps} on: {scenario.injected.fault.text}.",
        "bold",
    )
    if outcome.right and outcome.delay_s is not None:
        text = (
            f"Named rightly {outcome.delay_s:.1f} s after the first faulty step; nobody else was."
        )
        _say(console, text, "bold green")
    for problem in outcome.problems:
        _say(console, f"Wrong: {problem}.", "bold red")


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
