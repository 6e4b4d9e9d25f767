"""The matching rules: which alarm is right about which fault.

**Incident level.** An alarm is *right* if it was given while the fault was there, names a kind
that describes it (methods without kinds are spared), and names culprits only: every rank that it
names is one, and it names none where no rank differs. An alarm that says that the side is unknown
is right if a culprit is among its ranks, and names no culprit by that. Every other alarm is
*false*, also one beside a fault: a victim that is blamed is a false alarm and a missed fault.
Alarms of a confounder are false unless the label allows what they say. Findings, which cost too
little to be alarms, are neither right nor false; they are counted apart.

A fault is *found* if one alarm is right about it. Several right alarms about one fault are counted
as one; how many there were is said apart. The first of a case's alarms (by cost) during a fault
is its answer to "who is it": *first* counts it only if it names all the culprits and nobody else.

**Component level**, of found faults: whether the right alarm that costs most names the component
with metrics and logs, and whether the component is among at most three candidates without them.

**Span level**, of found faults: the spans that the right alarms cite beside the spans whose own
times the fault changed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from kat_otel.lmdia.label import Label, Truth
from kat_otel.lmdia.scoring.alarm import Alarm

__all__ = ["GRACE", "MOST_CANDIDATES", "Found", "Outcome", "score"]

GRACE: Final = 1
"""Steps after the last faulty one in which an alarm still counts as given during the fault."""
MOST_CANDIDATES: Final = 3


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one fault.

    Attributes:
        severity: of the fault.
        lasting: judged steps that it was there.
        found: whether an alarm is right about it.
        paged: whether a right one pages.
        delay: judged steps from the first faulty one to the first right alarm, 0 if in the same
            step; None if it was not found.
        alarms: right alarms about it.
        first: whether the costliest alarm given during the fault names exactly the culprits.
        asked: whether there was an alarm during the fault: without one nobody was named.
        retrieved: whether a culprit is among the ranks of any alarm during the fault.
        component: whether the component is right, with metrics and logs.
        among: whether it is among the candidates of the traces alone.
        cited, hit, affected: spans cited at the culprits, those of them that the fault changed, and
            changed ones in the steps of the right alarms.
    """

    severity: float
    lasting: int
    found: bool
    paged: bool
    delay: int | None
    alarms: int
    first: bool
    asked: bool
    retrieved: bool
    component: bool
    among: bool
    cited: int = 0
    hit: int = 0
    affected: int = 0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A case with what was said of it.

    Attributes:
        label: the truth.
        faults: what became of each of its faults.
        right, false, allowed: alarms by what they are.
        false_pages: false alarms that page.
        findings: what was said besides, too small for an alarm.
        told: the false alarms, for people.
    """

    label: Label
    faults: tuple[Found, ...]
    right: int
    false: int
    allowed: int
    false_pages: int
    findings: int = 0
    told: tuple[Alarm, ...] = ()


def score(
    label: Label, alarms: Sequence[Alarm], affected: Sequence[Collection[int]] = ()
) -> Outcome:
    """Compares what was said with what is true.

    Args:
        label: the truth about the case.
        alarms: what a method said of it.
        affected: ids of the spans that each fault changed, in the order of ``label.faults``; empty
            for methods that cite no spans.
    """
    ordered = sorted((a for a in alarms if not a.finding), key=lambda a: -a.share)
    right_about = [[a for a in ordered if _right(a, t, label)] for t in label.faults]
    right = {id(a) for about in right_about for a in about}
    allowed = {id(a) for a in ordered if id(a) not in right and _may(a, label)}
    false = [a for a in ordered if id(a) not in right and id(a) not in allowed]
    spans = affected or [()] * len(label.faults)
    return Outcome(
        label=label,
        faults=tuple(
            _found(truth, about, ordered, label, changed)
            for truth, about, changed in zip(label.faults, right_about, spans, strict=True)
        ),
        right=len(right),
        false=len(false),
        allowed=len(allowed),
        false_pages=sum(a.page for a in false),
        findings=len(alarms) - len(ordered),
        told=tuple(false),
    )


def _during(alarm: Alarm, truth: Truth, label: Label) -> list[int]:
    """Returns the alarm's steps while the fault was there."""
    after = [s for s in label.steps if s > truth.last_step][:GRACE]
    last = after[-1] if after else truth.last_step
    return [s for s in alarm.steps if truth.first_step <= s <= last]


def _right(alarm: Alarm, truth: Truth, label: Label) -> bool:
    if not _during(alarm, truth, label):
        return False
    if alarm.kind is not None and alarm.kind not in truth.kinds:
        return False
    named, culprits = set(alarm.ranks), set(truth.culprits)
    if not alarm.sure:
        return bool(named & culprits) or not culprits
    return bool(named) == bool(culprits) and named <= culprits


def _may(alarm: Alarm, label: Label) -> bool:
    return any(
        (alarm.kind is None or alarm.kind in allowed.kinds)
        and (alarm.component is None or alarm.component in allowed.components)
        and (allowed.ranks is None or set(alarm.ranks) <= set(allowed.ranks))
        for allowed in label.allowed
    )


def _found(
    truth: Truth,
    about: list[Alarm],
    ordered: list[Alarm],
    label: Label,
    changed: Collection[int],
) -> Found:
    during = [a for a in ordered if _during(a, truth, label)]
    steps = [min(_during(a, truth, label)) for a in about]
    best = about[0] if about else None
    cited = {span for a in about for span in a.spans}
    top = during[0] if during else None
    return Found(
        severity=truth.severity,
        lasting=sum(truth.first_step <= s <= truth.last_step for s in label.steps),
        found=best is not None,
        paged=any(a.page for a in about),
        delay=_between(truth.first_step, min(steps), label) if steps else None,
        alarms=len(about),
        first=top is not None and top.sure and set(top.ranks) == set(truth.culprits),
        asked=top is not None,
        retrieved=any(set(a.ranks) & set(truth.culprits) for a in during)
        or (not truth.culprits and bool(during)),
        component=best is not None and best.component == truth.component,
        among=best is not None and truth.component in best.candidates[:MOST_CANDIDATES],
        cited=len(cited),
        hit=len(cited & set(changed)) if cited else 0,
        affected=len(changed),
    )


def _between(first: int, last: int, label: Label) -> int:
    return sum(first < step <= last for step in label.steps)
