"""From the suspects and changes of a step to the report's incidents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kat_otel.ttad.components import candidates
from kat_otel.ttad.evidence import change_evidence, suspect_evidence
from kat_otel.ttad.groups import GroupChange
from kat_otel.ttad.judged import Judged
from kat_otel.ttad.settings import Settings
from kat_otel.ttad.suspects import Suspect
from kat_otel.verdict import (
    ComponentCandidate,
    Culprit,
    Evidence,
    Incident,
    Kind,
    Scope,
    SpanRef,
)

__all__ = ["change_incident", "suspect_incident"]


def suspect_incident(suspect: Suspect, judged: Judged, settings: Settings) -> Incident:
    """Writes the incident of one suspect in one step."""
    kernels = [judged.family(n) for n in suspect.nodes]
    groups = [judged.meetings.group[m] for m in suspect.meetings]
    return _incident(
        judged,
        _Said(
            ranks=judged.ranks(suspect.columns),
            sure=suspect.sure,
            kind=suspect.kind,
            scope="kernel" if suspect.kind in ("slow_kernel", "slow_copy") else "rank",
            victims=judged.ranks(suspect.victims),
            group=max(set(groups), key=groups.count) if groups else "",
            components=candidates(
                suspect.kind,
                kernels,
                short=judged.durations.short_slowness(suspect.columns[0]),
            ),
            impact_ns=suspect.impact_ns,
            score=suspect.score,
            p=suspect.p,
            spans=_cited(suspect, judged, settings),
            evidence=suspect_evidence(suspect, judged),
        ),
    )


def change_incident(change: GroupChange, judged: Judged, settings: Settings) -> Incident:
    """Writes the incident of a change that a whole group shares: no rank is the culprit."""
    names = [judged.family(n) for n in change.nodes]
    hosts = {r.host for r in judged.table.resources if r.host}
    return _incident(
        judged,
        _Said(
            ranks=[],
            sure=True,
            kind=change.kind,
            scope="instance" if change.kind == "regression" else "group",
            victims=_waiting(change, judged),
            group=change.group,
            components=candidates(change.kind, names, hosts=len(hosts)),
            impact_ns=change.impact_ns,
            score=change.score,
            p=change.p,
            spans=_changed(change, judged, settings),
            evidence=change_evidence(change, judged),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Said:
    """What differs between incidents."""

    ranks: list[int]
    sure: bool
    kind: Kind
    scope: Scope
    victims: list[int]
    group: str
    components: list[ComponentCandidate]
    impact_ns: float
    score: float
    p: float
    spans: list[SpanRef]
    evidence: list[Evidence]


def _incident(judged: Judged, said: _Said) -> Incident:
    features = judged.features
    of_rank = {r.rank: r for r in judged.table.resources}
    mine = [of_rank[r] for r in said.ranks if r in of_rank]
    likeliest = said.components[0]
    return Incident(
        id="",  # the tracker gives it
        status="open",
        first_seen=features.origin_ns + round(float(features.begin.min())),
        last_seen=features.origin_ns + round(float(features.finish.max())),
        occurrences=1,
        steps=[judged.step],
        page=False,
        kind=said.kind,
        scope=said.scope,
        culprit=Culprit(
            ranks=said.ranks,
            devices=[r.hardware_id or (str(r.device) if r.device >= 0 else "") for r in mine],
            hosts=sorted({r.host for r in mine if r.host}),
            sure=said.sure,
        ),
        victims=said.victims,
        group=said.group or None,
        link=None,
        component=likeliest.component,
        component_candidates=said.components,
        component_confidence=likeliest.probability,
        impact_ns=round(said.impact_ns),
        score=round(said.score, 2),
        false_alarm_probability=said.p,
        spans=said.spans,
        evidence=said.evidence,
    )


def _waiting(change: GroupChange, judged: Judged) -> list[int]:
    """Who is held up: everyone concerned, or, by a slow stage, everyone else."""
    if change.kind != "imbalance":
        return judged.ranks(change.columns)
    everyone = range(len(judged.alignment.ranks))
    return judged.ranks([c for c in everyone if c not in change.columns])


def _changed(change: GroupChange, judged: Judged, settings: Settings) -> list[SpanRef]:
    """One span of each changed node; of collectives the last arriver's, which is bare of wait."""
    spans: list[SpanRef] = []
    for node, expected in zip(change.nodes, change.expected, strict=True):
        if len(spans) >= settings.max_spans_cited:
            break
        present = np.array([c for c in change.columns if judged.alignment.rows[node, c] >= 0])
        column = int(present[np.argmax(judged.features.start[node, present])])
        spans.append(_span_ref(judged, int(judged.alignment.rows[node, column]), expected))
    return spans


def _cited(suspect: Suspect, judged: Judged, settings: Settings) -> list[SpanRef]:
    """The culprit's slow or late spans, then the collectives at which it was waited for."""
    alignment, met, features = judged.alignment, judged.meetings, judged.features
    spans: list[SpanRef] = []
    half = settings.max_spans_cited // 2
    for node in suspect.nodes[:half]:
        for column in suspect.columns:
            row = int(alignment.rows[node, column])
            if row >= 0:
                expected = float(judged.durations.expected[node, column])
                known = suspect.kind not in ("late_launch", "stall") and expected > 0
                spans.append(_span_ref(judged, row, expected if known else None))
    cited = {s.span_id for s in spans}
    lead = suspect.columns[0]
    order = sorted(suspect.meetings, key=lambda m: -float(judged.lateness.excess[m, lead]))
    for meeting in order:
        node = int(met.node[meeting])
        last = float(met.arrival[meeting][met.member[meeting]].max())
        for column in [*suspect.columns, *suspect.victims]:
            row = int(alignment.rows[node, column])
            if row < 0 or len(spans) >= settings.max_spans_cited:
                continue
            wait = max(last - float(features.start[node, column]), 0.0)
            expected = max(float(features.duration[node, column]) - wait, 0.0)
            ref = _span_ref(judged, row, None if column in suspect.columns else expected)
            if ref.span_id not in cited:
                spans.append(ref)
    return spans


def _span_ref(judged: Judged, row: int, expected_ns: float | None) -> SpanRef:
    table = judged.table
    stream = int(table.stream[row])
    return SpanRef(
        rank=table.resources[int(table.resource[row])].rank,
        stream=stream if stream >= 0 else None,
        name=table.name_of(row),
        start_unix_nano=int(table.start_ns[row]),
        duration_ns=int(table.duration_ns[row]),
        expected_ns=None if expected_ns is None else round(expected_ns),
        trace_id=f"{int(table.trace_hi[row]):016x}{int(table.trace_lo[row]):016x}",
        span_id=f"{int(table.span_id[row]):016x}",
    )
