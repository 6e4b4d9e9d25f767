"""The report for a terminal or a pipe: the culprit in the first line, then what proves it.

Layout: one sentence; a table of incidents; for the costliest ones their evidence and what
to do next; then what was read, and what could not be judged.
"""

from __future__ import annotations

import io
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kat_otel.report.advice import KIND_MEANING, next_step
from kat_otel.report.explanation import mode_text
from kat_otel.report.sentences import (
    by_impact,
    clock_text,
    culprit_sentence,
    duration_text,
    first_line,
    percent_text,
    places_text,
    printable,
    probability_text,
)
from kat_otel.verdict import Coverage, Incident, Report, Source
from kat_otel.wording import rank_list, ranks_text

__all__ = ["print_text", "render_text"]

_PIPE_WIDTH = 120
"""Columns when nobody's terminal says how many there are."""
_MAX_INCIDENTS = 20
_EXPLAINED = 3
"""Incidents whose evidence is printed; the table above has them all."""
_MAX_EVIDENCE = 6
_MAX_NOTES = 12


def render_text(report: Report, *, width: int = _PIPE_WIDTH) -> str:
    """Returns the report as plain text without colours, at most ``width`` columns."""
    out = io.StringIO()
    _print(Console(file=out, width=width, color_system=None, highlight=False), report)
    # rich pads wrapped lines to the full width; nobody wants that in a file
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def print_text(report: Report, stream: TextIO) -> None:
    """Prints the report to ``stream``: in colour and as wide as it is if it's a terminal."""
    if stream.isatty():
        _print(Console(file=stream, highlight=False), report)
    else:
        stream.write(render_text(report))


def _print(console: Console, report: Report) -> None:
    incidents = by_impact(report)
    style = "yellow" if report.abstained else "bold red" if incidents else "bold green"
    console.print(Text(first_line(report), style=style), soft_wrap=True)
    console.print()
    if incidents:
        console.print(_incident_table(incidents[:_MAX_INCIDENTS]))
        console.print()
        if len(incidents) > _MAX_INCIDENTS:
            console.print(Text(f"  and {len(incidents) - _MAX_INCIDENTS} smaller incidents\n"))
    for number, incident in enumerate(incidents[:_EXPLAINED], start=1):
        _explain(console, number, incident, report)
    _print_source(console, report.source, report.coverage, len(report.steps))
    _print_gaps(console, report)


def _incident_table(incidents: list[Incident]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("#", justify="right", style="dim")
    table.add_column("culprit", style="bold", overflow="fold", min_width=7)
    table.add_column("waits", overflow="fold", min_width=5)
    table.add_column("kind", no_wrap=True)
    table.add_column("component", overflow="fold")
    table.add_column("cost/step", justify="right", no_wrap=True, style="bold")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("false alarm", justify="right", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for number, incident in enumerate(incidents, start=1):
        culprit = rank_list(incident.culprit.ranks) or incident.scope
        table.add_row(
            str(number),
            Text(culprit + ("" if incident.culprit.sure else " (side unknown)")),
            Text(rank_list(incident.victims) or "-"),
            incident.kind,
            f"{incident.component} ({incident.component_confidence:.2g})",
            duration_text(incident.impact_ns),
            f"{incident.score:.1f}",
            probability_text(incident.false_alarm_probability),
            str(incident.occurrences),
            Text(incident.status + (", page" if incident.page else "")),
        )
    return table


def _explain(console: Console, number: int, incident: Incident, report: Report) -> None:
    sentence = culprit_sentence(incident, report.source.ranks)
    console.print(Text(f"{number}. {sentence}", style="bold"))
    _indented(console, KIND_MEANING[incident.kind])
    places = places_text(incident.culprit)
    if places:
        _indented(console, f"Where: {places}")
    for evidence in incident.evidence[:_MAX_EVIDENCE]:
        _indented(console, f"{printable(evidence.id)}: {printable(evidence.text)}", mark="- ")
    if len(incident.evidence) > _MAX_EVIDENCE:
        left = len(incident.evidence) - _MAX_EVIDENCE
        _indented(console, f"and {left} more (--format json has all)", mark="- ")
    others = [c for c in incident.component_candidates if c.component != incident.component]
    if others:
        said = ", ".join(f"{c.component} ({c.probability:.2g})" for c in others[:4])
        _indented(console, f"It could also be: {said}")
    _diagnosis(console, incident)
    _indented(console, f"Next: {printable(next_step(incident))}")
    console.print()


def _diagnosis(console: Console, incident: Incident) -> None:
    """Prints what is diagnosed and on which facts, which stand above with their numbers."""
    said = incident.diagnosis or {}  # of a report made elsewhere, any part may be missing
    if "summary" not in said:
        return
    text = f"Diagnosis: {said['summary']}"
    if "root_cause" in said and not said.get("abstained"):
        chain = said.get("causal_chain")
        because = f", from {', '.join(chain[0]['evidence_ids'])}" if chain else ""
        text += f" ({said['root_cause']}, {said.get('confidence', 0):.2g}{because})"
    if said.get("model"):  # rules alone are what everybody has: nobody wants to read it each time
        text += f" — {mode_text(said)}"
    _indented(console, printable(text))


def _indented(console: Console, text: str, *, mark: str = "") -> None:
    body = Text(text)
    if mark:  # a hanging indent: continuation lines stand under the text, not under the mark
        grid = Table.grid(padding=0)
        grid.add_column(no_wrap=True)
        grid.add_column()
        grid.add_row(mark, body)
        console.print(Padding(grid, (0, 0, 0, 3), expand=False))
    else:
        console.print(Padding(body, (0, 0, 0, 3), expand=False))


def _print_source(console: Console, source: Source, coverage: Coverage, steps: int) -> None:
    files = len(source.files)
    world = f" of {source.world_size}" if source.world_size else ""
    alone = len(source.ranks) < 2
    aligned = "" if alone else percent_text(coverage.aligned, coverage.kernels)
    console.print(
        Text.assemble(
            ("Read: ", "bold"),
            f"{files} file{'' if files == 1 else 's'}, {ranks_text(source.ranks)}"
            f" ({len(source.ranks)}{world}), {steps} step{'' if steps == 1 else 's'}, "
            f"{coverage.spans:,} spans, {coverage.kernels:,} kernels"
            + (f" ({aligned} compared with a counterpart)" if aligned else ""),
        )
    )
    resolution = duration_text(source.resolution_ns)
    console.print(
        Text.assemble(("Clocks: ", "bold"), f"{clock_text(source)}; resolution {resolution}")
    )


def _print_gaps(console: Console, report: Report) -> None:
    coverage = report.coverage
    gaps = [printable(note) for note in coverage.notes[:_MAX_NOTES]]
    if len(coverage.notes) > _MAX_NOTES:
        gaps.append(f"and {len(coverage.notes) - _MAX_NOTES} more notes (--format json has all)")
    if coverage.unmatched:
        gaps.insert(0, f"{coverage.unmatched:,} kernels have no counterpart to compare with")
    if not gaps:
        return
    console.print(Text("Not judged, or to be known:", style="bold"))
    for gap in gaps:
        _indented(console, gap, mark="- ")
