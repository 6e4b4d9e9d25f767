"""From the suspects of a step to the report's incidents, and their life across steps."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from kat_otel.spans import SpanTable
from kat_otel.ttad.align import Alignment
from kat_otel.ttad.components import candidates
from kat_otel.ttad.durations import Durations
from kat_otel.ttad.evidence import change_evidence, suspect_evidence
from kat_otel.ttad.features import Features
from kat_otel.ttad.groups import GroupChange
from kat_otel.ttad.lateness import Lateness
from kat_otel.ttad.meetings import Meetings
from kat_otel.ttad.settings import Settings
from kat_otel.ttad.suspects import Suspect
from kat_otel.verdict import Culprit, Incident, Scope, SpanRef

__all__ = ["Judged", "Tracker", "change_incident", "suspect_incident"]

_MAX_STEPS_LISTED = 1000
_MAX_LIVE = 1000


@dataclass(frozen=True, slots=True)
class Judged:
    """Everything measured and judged of one step: what incidents are written from."""

    table: SpanTable
    step: int
    alignment: Alignment
    features: Features
    meetings: Meetings
    lateness: Lateness
    durations: Durations


def suspect_incident(suspect: Suspect, judged: Judged, settings: Settings) -> Incident:
    """Writes the incident of one suspect in one step."""
    alignment = judged.alignment
    ranks = [int(alignment.ranks[c]) for c in suspect.columns]
    kernels = [alignment.families[alignment.family[n]] for n in suspect.nodes]
    components = candidates(suspect.kind, kernels)
    scope: Scope = "kernel" if suspect.kind in ("slow_kernel", "slow_copy") else "rank"
    evidence = suspect_evidence(
        suspect,
        judged.meetings,
        judged.lateness,
        judged.durations,
        judged.features,
        alignment,
    )
    groups = [judged.meetings.group[m] for m in suspect.meetings]
    return _incident(
        judged,
        ranks=ranks,
        sure=suspect.sure,
        kind=suspect.kind,
        scope=scope,
        victims=[int(alignment.ranks[c]) for c in suspect.victims],
        group=max(set(groups), key=groups.count) if groups else "",
        components=components,
        impact_ns=suspect.impact_ns,
        score=suspect.score,
        p=suspect.p,
        spans=_cited(suspect, judged, settings),
        evidence=evidence,
    )


def change_incident(change: GroupChange, judged: Judged, settings: Settings) -> Incident:
    """Writes the incident of a change that a whole group shares: no rank is the culprit."""
    alignment = judged.alignment
    names = [alignment.families[alignment.family[n]] for n in change.nodes]
    hosts = {r.host for r in judged.table.resources if r.host}
    spans: list[SpanRef] = []
    for node, expected in zip(change.nodes, change.expected, strict=True):
        if len(spans) >= settings.max_spans_cited:
            break
        present = np.flatnonzero(alignment.rows[node] >= 0)
        if change.kind == "slow_transfer" and len(present):  # the last to arrive saw it bare
            column = int(present[np.argmax(judged.features.start[node, present])])
        else:
            column = int(present[0])
        spans.append(_span_ref(judged, int(alignment.rows[node, column]), expected))
    return _incident(
        judged,
        ranks=[],
        sure=True,
        kind=change.kind,
        scope="group" if change.kind == "slow_transfer" else "instance",
        victims=[int(alignment.ranks[c]) for c in change.columns],
        group=change.group,
        components=candidates(change.kind, names, hosts=len(hosts)),
        impact_ns=change.impact_ns,
        score=change.score,
        p=change.p,
        spans=spans,
        evidence=change_evidence(change, judged.features, alignment),
    )


def _incident(judged: Judged, **said: object) -> Incident:
    ranks: list[int] = said["ranks"]  # type: ignore[assignment]
    components = said["components"]
    table, features = judged.table, judged.features
    of_rank = {r.rank: r for r in table.resources}
    mine = [of_rank[r] for r in ranks if r in of_rank]
    group = str(said["group"])
    key = f"{said['scope'] if not ranks else ''}|{ranks}|{group if not ranks else ''}"
    digest = hashlib.blake2b(f"{key}|{judged.step}".encode(), digest_size=6).hexdigest()
    start = features.origin_ns + round(float(features.begin.min()))
    end = features.origin_ns + round(float(features.finish.max()))
    return Incident(
        id=digest,
        status="open",
        first_seen=start,
        last_seen=end,
        occurrences=1,
        steps=[judged.step],
        page=False,
        kind=said["kind"],  # type: ignore[arg-type]
        scope=said["scope"],  # type: ignore[arg-type]
        culprit=Culprit(
            ranks=ranks,
            devices=[r.hardware_id or (str(r.device) if r.device >= 0 else "") for r in mine],
            hosts=sorted({r.host for r in mine if r.host}),
            sure=bool(said["sure"]),
        ),
        victims=said["victims"],  # type: ignore[arg-type]
        group=group or None,
        link=None,
        component=components[0].component,  # type: ignore[index]
        component_candidates=components,  # type: ignore[arg-type]
        component_confidence=components[0].probability,  # type: ignore[index]
        impact_ns=round(float(said["impact_ns"])),  # type: ignore[arg-type]
        score=round(float(said["score"]), 2),  # type: ignore[arg-type]
        false_alarm_probability=float(said["p"]),  # type: ignore[arg-type]
        spans=said["spans"],  # type: ignore[arg-type]
        evidence=said["evidence"],  # type: ignore[arg-type]
        diagnosis=None,
    )


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


@dataclass(slots=True)
class _Life:
    incident: Incident
    impacts: float
    silent: int = 0
    kinds: dict[str, float] = field(default_factory=dict[str, float])


class Tracker:
    """The life of incidents: open at first sight, ongoing while seen, resolved after silence.

    One culprit (or one group, where no rank is to blame) is one incident, also if single
    steps show another kind: the kind that cost most in total is the incident's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._live: OrderedDict[tuple[object, ...], _Life] = OrderedDict()

    def __len__(self) -> int:
        return len(self._live)

    def update(self, seen: list[Incident], step_length_ns: float) -> list[Incident]:
        """Takes the incidents of one step, in step order.

        Returns:
            The incidents that this step touched or resolved, with their whole life so far.
        """
        touched: list[Incident] = []
        keys: set[tuple[object, ...]] = set()
        for incident in seen:
            key = self._key(incident)
            if key in keys:
                continue
            keys.add(key)
            touched.append(self._merge(key, incident, step_length_ns))
        for key in [k for k in self._live if k not in keys]:
            life = self._live[key]
            life.silent += 1
            if life.silent >= self._settings.resolve_after:
                life.incident.status = "resolved"
                touched.append(life.incident)
                del self._live[key]
        while len(self._live) > _MAX_LIVE:
            self._live.popitem(last=False)
        return sorted(touched, key=lambda i: -i.impact_ns)

    def _key(self, incident: Incident) -> tuple[object, ...]:
        ranks = tuple(incident.culprit.ranks)
        return ranks if ranks else (incident.scope, incident.group, incident.kind)

    def _merge(
        self, key: tuple[object, ...], incident: Incident, step_length_ns: float
    ) -> Incident:
        life = self._live.get(key)
        weight = float(max(incident.impact_ns, 1))
        if life is None:
            life = self._live[key] = _Life(incident, weight, kinds={incident.kind: weight})
        else:
            old, life.silent = life.incident, 0
            life.impacts += weight
            life.kinds[incident.kind] = life.kinds.get(incident.kind, 0.0) + weight
            occurrences = old.occurrences + 1
            usual = max(life.kinds, key=lambda k: life.kinds[k])
            shown = incident if incident.kind == usual else old
            life.incident = Incident(
                **{
                    **{f: getattr(shown, f) for f in Incident.__struct_fields__},
                    "id": old.id,
                    "status": "ongoing",
                    "first_seen": old.first_seen,
                    "last_seen": incident.last_seen,
                    "occurrences": occurrences,
                    "steps": [*old.steps, *incident.steps][-_MAX_STEPS_LISTED:],
                    "page": old.page,
                    "victims": sorted({*old.victims, *incident.victims}),
                    "impact_ns": round(life.impacts / occurrences),
                    "score": max(old.score, incident.score),
                    "false_alarm_probability": min(
                        old.false_alarm_probability, incident.false_alarm_probability
                    ),
                }
            )
        now = life.incident
        if (
            now.occurrences >= self._settings.page_occurrences
            and now.impact_ns >= self._settings.page_impact_fraction * step_length_ns
            and now.culprit.sure
        ):
            now.page = True
        return now
