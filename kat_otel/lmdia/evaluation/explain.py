"""One case, told: what is true, what TTAD said of each step, and how it was scored."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from kat_otel.lmdia.dataset.plan import Case
from kat_otel.lmdia.dataset.played import Played
from kat_otel.lmdia.evaluation.ttad import Watch
from kat_otel.lmdia.scoring.alarm import Alarm
from kat_otel.lmdia.scoring.match import score
from kat_otel.ttad.evidence import duration_text

__all__ = ["explained"]


def explained(case: Case, played: Played) -> Iterator[str]:
    """Yields lines for people while the case is played."""
    label = played.label
    yield f"{label.case}: {label.part} {label.scenario} on {label.task} ({case.split})"
    for note in label.notes:
        yield f"  {note}"
    for truth in label.faults:
        who = f"ranks {list(truth.culprits)}" if truth.culprits else "no rank differs"
        yield (
            f"truth: {truth.text}; {who}; {truth.magnitude:g} {truth.unit}, the step "
            f"{100 * truth.severity:.1f} % longer in steps {truth.first_step} to {truth.last_step}"
        )
        yield (
            f"  right kinds {', '.join(truth.kinds)}; component {truth.component}, from traces "
            f"alone one of {', '.join(truth.candidates)}"
        )
    for allowed in label.allowed:
        yield f"may be called {', '.join(allowed.kinds)} ({', '.join(allowed.components)})"
    watch = Watch()
    changed: list[list[np.ndarray]] = [[] for _ in label.faults]
    for step in played.steps():
        for of_fault, ids in zip(changed, step.affected, strict=False):
            of_fault.append(ids)
        report = watch.see(step.table)
        for found in report.steps:
            said = f"step {step.number}: {duration_text(found.duration_ns)}"
            if report.abstained:
                said += f", not judged: {report.abstained.reason}"
            yield said
        for incident in report.incidents:
            who = f"ranks {incident.culprit.ranks}" if incident.culprit.ranks else "nobody"
            chance = incident.false_alarm_probability
            yield (
                f"    {incident.status} {incident.kind} of {who}"
                f"{'' if incident.culprit.sure else ', side unknown'}, "
                f"{duration_text(incident.impact_ns)} a step, p {chance:.1e}"
                f"{', page' if incident.page else ''}"
            )
            yield from (f"        {fact.text}" for fact in incident.evidence[:4])
    affected: list[Collection[int]] = [
        frozenset(np.concatenate(of_fault).tolist()) if of_fault else () for of_fault in changed
    ]
    alarms = watch.alarms(played.requests(), played.workers)
    outcome = score(label, alarms, affected)
    for truth, found in zip(label.faults, outcome.faults, strict=True):
        del truth
        verdict = f"found after {found.delay} steps" if found.found else "missed"
        yield (
            f"scored: {verdict}; culprit first {found.first}, component {found.component}, among "
            f"three {found.among}, {found.hit} of {found.cited} cited spans were changed"
        )
    for alarm in outcome.told:
        yield f"false: {_told(alarm)}"
    yield f"{outcome.right} right, {outcome.allowed} allowed, {outcome.false} false"


def _told(alarm: Alarm) -> str:
    return (
        f"{alarm.kind} of ranks {list(alarm.ranks)} in {len(alarm.steps)} steps from "
        f"{alarm.steps[0]}, {100 * alarm.share:.1f} % of a step, {alarm.component}"
    )
