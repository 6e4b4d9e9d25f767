"""What the HTML page says, as plain variables for its template: no markup, no escaping here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

import numpy as np

from kat_otel.report.advice import KIND_MEANING, next_step
from kat_otel.report.compare import compare_kernels
from kat_otel.report.page_diagnosis import diagnosis_view
from kat_otel.report.page_tables import kernels_view, matrix_view, spans_as_kernels
from kat_otel.report.page_timeline import timeline_view
from kat_otel.report.scene import step_of
from kat_otel.report.sentences import (
    by_impact,
    clock_text,
    culprit_sentence,
    duration_text,
    first_line,
    percent_text,
    places_text,
    probability_text,
)
from kat_otel.report.stage import Stage, stage_of
from kat_otel.report.timeline import timeline
from kat_otel.spans import SpanTable
from kat_otel.verdict import Incident, Report
from kat_otel.wording import rank_list, ranks_text

__all__ = ["Words", "page"]

_MAX_INCIDENTS = 8
_MAX_EVIDENCE = 12
_MAX_SPANS = 24
_MAX_NOTES = 40
_CALENDAR_NS = 946_684_800_000_000_000
"""The year 2000: an earlier begin is no date."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the page says of where its figures are from.

    Attributes:
        history: of the healthy spans that the culprit's kernels are compared with.
        no_spans: why there is no timeline where no spans were given.
        more: where the incidents are that the page has no room for.
        back: address and name of the page that led here, if one did.
    """

    history: str = "in the healthy recording"
    no_spans: str = "the spans themselves were not given to this report."
    more: str = "kat analyze --format json lists them all"
    back: tuple[str, str] | None = None


def page(
    report: Report, table: SpanTable | None, baseline: SpanTable | None, words: Words
) -> dict[str, Any]:
    """Returns the template's variables for ``report``.

    Args:
        report: the verdict.
        table: the spans it was made from, for the drawings; None leaves them out.
        baseline: the healthy recording it was compared with.
        words: where all that is from.
    """
    incidents = by_impact(report)
    stages = None if table is None else _Stages(table, baseline, words)
    source, coverage = report.source, report.coverage
    steps = len(report.steps)
    headline, detail, tone = _headline(report)
    return {
        "title": first_line(report),
        "headline": headline,
        "detail": detail,
        "tone": tone,
        "read_line": [
            f"{len(source.ranks)} rank{'' if len(source.ranks) == 1 else 's'}",
            f"{steps} step{'' if steps == 1 else 's'}",
            f"{coverage.spans:,} spans",
            *([report.instance.id] if report.instance else []),
        ],
        "back": words.back,
        "incidents": [
            {"no_timeline": words.no_spans, **_incident(report, incident, stages)}
            for incident in incidents[:_MAX_INCIDENTS]
        ],
        "more_incidents": max(0, len(incidents) - _MAX_INCIDENTS),
        "more": words.more,
        "source": [
            *_origin(report),
            (
                "Ranks",
                rank_list(source.ranks) + (f" of {source.world_size}" if source.world_size else ""),
            ),
            *_counterparts(report),
            ("Clocks", clock_text(source)),
            ("Resolution", duration_text(source.resolution_ns)),
        ],
        "notes": [
            *coverage.notes[:_MAX_NOTES],
            *(
                [f"and {len(coverage.notes) - _MAX_NOTES} more notes in the report object"]
                if len(coverage.notes) > _MAX_NOTES
                else []
            ),
        ],
    }


def _origin(report: Report) -> list[tuple[str, str]]:
    """Where the spans came from: files, or a running instance; and when."""
    found: list[tuple[str, str]] = []
    if files := report.source.files:
        # the folder says more about the reader's machine than about the trace
        names = ", ".join(PurePath(file).name for file in files[:4])
        found.append(("Files", f"{len(files)}: {names}{', …' if len(files) > 4 else ''}"))
    if instance := report.instance:
        found.append(("Instance", instance.id))
        found += [
            (term, text)
            for term, text in (
                ("Model", instance.model),
                ("Engine", instance.engine),
                ("Parallelism", _parallelism(instance.parallelism or {})),
            )
            if text
        ]
    if steps := report.steps:
        number = f"step {steps[0].step}" if len(steps) == 1 else f"{len(steps)} steps"
        begun = steps[0].start_unix_nano
        if begun >= _CALENDAR_NS:  # some sources count from the machine's start
            moment = datetime.fromtimestamp(begun / 1e9, UTC)
            number += f", begun {moment:%Y-%m-%d %H:%M:%S} UTC"
        found.append(("Recorded", number))
    return found


def _parallelism(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name.upper()} {size}" for name, size in sizes.items() if size > 1)


def _counterparts(report: Report) -> list[tuple[str, str]]:
    coverage = report.coverage
    if len(report.source.ranks) < 2:
        return [("Kernels", f"{coverage.kernels:,}, no other rank to compare with")]
    share = percent_text(coverage.aligned, coverage.kernels)
    said = f"{coverage.aligned:,} of {coverage.kernels:,}" + (f" ({share})" if share else "")
    return [
        ("Kernels with a counterpart", said),
        ("Kernels without", f"{coverage.unmatched:,}"),
    ]


class _Stages:
    """Prepares every step once, however many incidents it has."""

    def __init__(self, table: SpanTable, baseline: SpanTable | None, words: Words) -> None:
        self._table = table
        self._baseline = baseline
        self._words = words
        self._known: dict[int | None, Stage | None] = {}

    def of(self, incident: Incident) -> Stage | None:
        step = step_of(self._table, incident)
        if step not in self._known:
            self._known[step] = stage_of(self._table, step)
        return self._known[step]

    def history(self, incident: Incident) -> tuple[SpanTable | None, str]:
        """Returns what the culprit is compared with over time, and what it is called."""
        if self._baseline is not None:
            return self._baseline, self._words.history
        others = ~np.isin(self._table.step, np.array(incident.steps, dtype=np.int32))
        others &= self._table.on_gpu & (self._table.step >= 0)
        return (self._table.take(others) if others.any() else None), "in its other steps"


def _headline(report: Report) -> tuple[str, str, str]:
    """Headline, detail and tone of a page without incidents."""
    if report.abstained is not None:
        reason = report.abstained.reason.replace("_", " ")
        return f"No verdict: {reason}.", report.abstained.detail, "unknown"
    said = first_line(report).partition(": ")
    return said[0] + ".", f"{said[2][:1].upper()}{said[2][1:]}.", "ok"


def _incident(report: Report, incident: Incident, stages: _Stages | None) -> dict[str, Any]:
    sentence = culprit_sentence(incident, report.source.ranks)
    step_ns = _step_time(report, incident)
    share = 100.0 * incident.impact_ns / step_ns if step_ns else 0.0
    evidence = incident.evidence[:_MAX_EVIDENCE]
    diagnosis = diagnosis_view(incident.diagnosis, [e.id for e in evidence])
    view: dict[str, Any] = {
        "who": ranks_text(incident.culprit.ranks) if incident.culprit.ranks else incident.scope,
        "headline": f"{sentence[0].upper()}{sentence[1:]}.",
        "meaning": KIND_MEANING[incident.kind],
        "cost": duration_text(incident.impact_ns) if incident.impact_ns else "none",
        "share": percent_text(incident.impact_ns, step_ns) if incident.impact_ns else "",
        "share_width": round(min(100.0, share), 2),
        "step_time": duration_text(step_ns),
        "kind_text": incident.kind.replace("_", " "),
        "scope": incident.scope,
        "where": incident.link or incident.group or "",
        "component": incident.component,
        "candidates": [
            {
                "name": c.component,
                "percent": f"{100 * c.probability:.0f} %",
                "width": round(100 * c.probability, 1),
            }
            for c in sorted(incident.component_candidates, key=lambda c: -c.probability)[:3]
        ],
        "certainty": "sure" if incident.culprit.sure else "side unknown",
        "false_alarm": probability_text(incident.false_alarm_probability),
        "score": f"{incident.score:.1f}",
        "status": incident.status,
        "page": incident.page,
        "seen": _seen(incident),
        "places": places_text(incident.culprit),
        "evidence": [{"id": e.id, "text": e.text} for e in evidence],
        "more_evidence": len(incident.evidence) - len(evidence),
        "actions": (diagnosis or {}).get("actions") or [next_step(incident)],
        "diagnosis": diagnosis,
        "spans": [
            {
                "rank": ref.rank,
                "stream": "-" if ref.stream is None else ref.stream,
                "name": ref.name,
                "duration": duration_text(ref.duration_ns),
                "expected": "-" if ref.expected_ns is None else duration_text(ref.expected_ns),
                "trace_id": ref.trace_id,
                "span_id": ref.span_id,
            }
            for ref in incident.spans[:_MAX_SPANS]
        ],
        "more_spans": len(incident.spans) if len(incident.spans) > _MAX_SPANS else 0,
        "timeline": None,
        "matrix": None,
        "kernels": spans_as_kernels(incident.spans),
    }
    if stages is None:
        return view
    stage = stages.of(incident)
    if stage is None:
        view["no_timeline"] = "the spans given have no GPU work in the incident's steps."
    else:
        shown = timeline(stage, incident)
        before, words = stages.history(incident)
        compared = compare_kernels(stage.table, incident, before)
        view["timeline"] = timeline_view(shown, incident)
        view["matrix"] = matrix_view(shown)
        if compared is not None:
            view["kernels"] = kernels_view(compared, incident, words)
    return view


def _step_time(report: Report, incident: Incident) -> int:
    """Duration of the incident's steps, ns: their median, 0 if none was judged."""
    wanted = set(incident.steps)
    durations = sorted(s.duration_ns for s in report.steps if s.step in wanted)
    return durations[len(durations) // 2] if durations else 0


def _seen(incident: Incident) -> str:
    steps = incident.steps
    times = f"seen {incident.occurrences} time{'' if incident.occurrences == 1 else 's'}"
    if not steps:
        return times
    said = str(steps[0]) if len(steps) == 1 else f"{min(steps)}-{max(steps)}"
    return f"{times}, step{'' if len(steps) == 1 else 's'} {said}"
