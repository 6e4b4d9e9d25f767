"""The step's root span, and what the verdict says on the spans that it speaks of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from kat_otel import semconv
from kat_otel.identity import root_span_id
from kat_otel.operators import Silence
from kat_otel.otlp import link_parents
from kat_otel.otlp.rest import Event, with_rest
from kat_otel.otlp.wire import WireValue
from kat_otel.processor.reduce import cited_rows
from kat_otel.processor.requests import requests_of
from kat_otel.processor.sentence import summary_of
from kat_otel.processor.silences import Silenced
from kat_otel.spans import (
    UNKNOWN,
    AttributeValue,
    Resource,
    SpanKind,
    SpanTable,
    SpanTableBuilder,
    concat,
)
from kat_otel.verdict import Incident, to_json

__all__ = [
    "Root",
    "culprit_span",
    "diagnosis_attributes",
    "incident_attributes",
    "mark_incidents",
    "named_by_rank",
    "with_root",
]

SERVICE = "kat"


class Root(NamedTuple):
    """What the step's root span says.

    Attributes:
        instance: ``kat.instance.id``.
        step: number of the step, or UNKNOWN.
        summarised: spans left out.
        missing_ranks: ranks that never closed the step.
        notes: why the step could not be judged in full, or ``""``.
        reports: whether its events carry the whole report objects.
        silenced: what silences its incidents.
    """

    instance: str
    step: int
    summarised: int
    missing_ranks: Sequence[int]
    notes: str = ""
    reports: bool = True
    silenced: Silenced = MappingProxyType({})


def with_root(
    table: SpanTable, bounds: tuple[int, int], root: Root, incidents: Sequence[Incident]
) -> SpanTable:
    """Returns the table with the step's root before all spans.

    The root's id is the one that every worker derived and named as its parent.

    Args:
        table: spans of one trace, at least one.
        bounds: start and end of the step, Unix ns.
        root: what the root says.
        incidents: active incidents of the step; each becomes an event on the root.
    """
    builder = SpanTableBuilder()
    builder.add_resource(
        Resource(instance=root.instance, attributes={semconv.SERVICE_NAME: SERVICE})
    )
    values: dict[str, AttributeValue] = {}
    if root.summarised:
        values[semconv.REDUCED_COUNT] = root.summarised
    if root.notes:
        values[semconv.COVERAGE] = root.notes
    if incidents:
        values |= _short(incidents[0], "", root.silenced)
    lists: dict[str, WireValue] = {}
    if root.missing_ranks:
        lists[semconv.MISSING_RANKS] = list(root.missing_ranks)
    if incidents:
        lists[semconv.INCIDENT_IDS] = [incident.id for incident in incidents]
    page = next((incident for incident in incidents if incident.page), None)
    events = tuple(
        event
        for i in incidents
        for event in _events(i, bounds[1], root.silenced.get(i.id), report=root.reports)
    )
    events += tuple(
        Event(semconv.EVENT_REQUEST, bounds[0], {semconv.REQUEST_TRACE_ID: request})
        for request in requests_of(table)
    )
    values = with_rest(values, events=events, lists=lists, error=summary_of(page) if page else "")
    builder.append(
        1,
        attributes={0: values} if values else None,
        trace_hi=table.trace_hi[0],
        trace_lo=table.trace_lo[0],
        span_id=root_span_id(table.trace_lo[:1]),
        start_ns=bounds[0],
        duration_ns=bounds[1] - bounds[0],
        name=builder.strings.add(f"step {root.step}" if root.step != UNKNOWN else "step"),
        kind=SpanKind.STEP,
        step=root.step,
    )
    return link_parents(concat([builder.build(), table]))


def named_by_rank(table: SpanTable) -> SpanTable:
    """Returns the table with each worker step named after its rank: ``rank 3``.

    Backends show a span's name first and its resource only when asked.
    """
    rows = np.flatnonzero((table.kind == SpanKind.WORKER_STEP) & (table.rank >= 0))
    if not len(rows):
        return table
    names = table.name.copy()
    # Strings are kept for good and shared: there is one for each rank, however many steps leave.
    names[rows] = [table.strings.add(f"rank {rank}") for rank in table.rank[rows].tolist()]
    return table.with_columns(name=names)


def mark_incidents(
    table: SpanTable,
    incidents: Sequence[Incident],
    *,
    reports: bool = True,
    silenced: Silenced = MappingProxyType({}),
) -> SpanTable:
    """Returns the table with the incidents' spans marked and an event on each culprit's span.

    Args:
        table: one step.
        incidents: its active incidents, the largest first.
        reports: whether the events carry the whole report objects. A fault that lasts touches
            every step; what has been said in full is referred to by the incident's id.
        silenced: what silences them.
    """
    if not incidents:
        return table
    attributes: dict[int, Mapping[str, AttributeValue]] = dict(table.attributes)
    ranks = table.rank
    for incident in reversed(incidents):  # the largest is written last and wins a shared span
        rows = cited_rows(table, incident)
        for row, span in zip(rows.tolist(), incident.spans, strict=True):
            if row < 0:
                continue
            role = "culprit" if int(ranks[row]) in incident.culprit.ranks else "victim"
            marks = _short(incident, role, silenced)
            if span.expected_ns is not None:
                marks[semconv.EXPECTED_NS] = span.expected_ns
            attributes[row] = {**attributes.get(row, {}), **marks}
        row = _culprit_row(table, incident, rows)
        if row >= 0:
            marked = {**attributes.get(row, {}), **_short(incident, "culprit", silenced)}
            silence = silenced.get(incident.id)
            events = _events(incident, int(table.end_ns[row]), silence, report=reports)
            error = summary_of(incident) if incident.page else ""
            attributes[row] = with_rest(marked, events=events, error=error)
    return replace(table, attributes=attributes)


def culprit_span(table: SpanTable, incident: Incident) -> tuple[bytes, bytes]:
    """Returns trace and span id of the span that carries the incident, empty if there is none."""
    row = _culprit_row(table, incident, cited_rows(table, incident))
    if row < 0:
        return b"", b""
    halves = int(table.trace_hi[row]), int(table.trace_lo[row])
    trace_id = b"".join(half.to_bytes(8, "big") for half in halves)
    return trace_id, int(table.span_id[row]).to_bytes(8, "big")


def _culprit_row(table: SpanTable, incident: Incident, rows: np.ndarray) -> int:
    """Returns the span that carries the report: the first cited of a culprit, else its step."""
    ranks = table.rank
    cited = [row for row in rows.tolist() if row >= 0 and ranks[row] in incident.culprit.ranks]
    if cited:
        return cited[0]
    steps = np.isin(ranks, incident.culprit.ranks) & (table.kind == SpanKind.WORKER_STEP)
    return int(np.argmax(steps)) if np.any(steps) else -1


def _short(incident: Incident, role: str, silenced: Silenced) -> dict[str, AttributeValue]:
    marks: dict[str, AttributeValue] = {
        semconv.ANOMALOUS: True,
        semconv.INCIDENT_ID: incident.id,
        semconv.KIND: incident.kind,
        semconv.COMPONENT: incident.component,
        semconv.PAGE: incident.page,
    }
    if role != "victim" and incident.culprit.sure:
        if len(incident.culprit.ranks) == 1:
            marks[semconv.CULPRIT_RANK] = incident.culprit.ranks[0]
        if len(incident.culprit.hosts) == 1:
            marks[semconv.CULPRIT_HOST] = incident.culprit.hosts[0]
    if incident.id in silenced:
        marks[semconv.SILENCED] = True
    if role:
        marks[semconv.ROLE] = role
    else:
        marks[semconv.SUMMARY] = summary_of(incident)
        marks[semconv.IMPACT_NS] = incident.impact_ns
    return marks


def _events(
    incident: Incident, time_ns: int, silence: Silence | None, *, report: bool
) -> tuple[Event, ...]:
    """Returns the incident as an event, and its diagnosis as another if there is one."""
    said = incident_attributes(incident, silence)
    if not report:
        del said[semconv.REPORT]
    event = Event(semconv.EVENT_INCIDENT, time_ns, said)
    if incident.diagnosis is None:
        return (event,)
    told = diagnosis_attributes(incident.id, incident.diagnosis)
    if not report:
        del told[semconv.DIAGNOSIS]
    return event, Event(semconv.EVENT_DIAGNOSIS, time_ns, told)


def diagnosis_attributes(
    incident: str, diagnosis: Mapping[str, Any], *, revision: int = 0
) -> dict[str, WireValue]:
    """Returns what a diagnosis' event says: what a person reads first, and the whole object."""
    return {
        semconv.INCIDENT_ID: incident,
        semconv.SUMMARY: diagnosis["summary"],
        semconv.ROOT_CAUSE: diagnosis["root_cause"],
        semconv.COMPONENT: diagnosis["component"],
        semconv.CONFIDENCE: diagnosis["confidence"],
        semconv.ACTION: diagnosis["actions"][0],
        semconv.DIAGNOSIS_MODE: diagnosis["mode"],
        semconv.REVISION: revision,
        semconv.DIAGNOSIS: msgspec.json.encode(diagnosis).decode(),
    }


def incident_attributes(incident: Incident, silence: Silence | None = None) -> dict[str, WireValue]:
    """Returns what events and log records say of an incident, the whole object among it.

    Args:
        incident: what happened.
        silence: what silences it.
    """
    said: dict[str, WireValue] = {
        semconv.INCIDENT_ID: incident.id,
        semconv.STATUS: incident.status,
        semconv.KIND: incident.kind,
        semconv.COMPONENT: incident.component,
        semconv.PAGE: incident.page,
        semconv.SCORE: incident.score,
        semconv.IMPACT_NS: incident.impact_ns,
        semconv.CULPRIT_RANKS: list(incident.culprit.ranks),
        semconv.VICTIM_RANKS: list(incident.victims),
        semconv.SUMMARY: summary_of(incident),
        semconv.REPORT: to_json(incident).decode(),
        semconv.SILENCED: silence is not None,
    }
    if silence is not None:
        said[semconv.SILENCE_ID] = silence.id
        said[semconv.SILENCE_END] = silence.end_unix_nano
        said[semconv.SILENCE_REASON] = silence.reason
    return said
