"""What the hardware readings of the culprit have that its peers', and its own past, have not.

Only readings of the culprit's devices and hosts are judged; those of the others are what they
are compared with. So a victim that draws little power and clocks down while it waits can
never speak for a component. Where no rank is the culprit, everybody's own past is the measure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from kat_otel.hardware.identity import hosts_agree
from kat_otel.hardware.readings import SIGNALS, Reading
from kat_otel.spans import UNKNOWN
from kat_otel.ttad.hardware_rules import RULES, WEAK, Rule
from kat_otel.verdict import Incident

__all__ = ["Observation", "observe"]

_TIMES: Final = 3.0
"""Of a count or share, how many times the reference is a deviation."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A rule that could be judged.

    Attributes:
        rule: the rule.
        reading: the culprit's reading that deviates most, or any if none does.
        peers: median of the peers' readings, in the reading's unit (counts over its time).
        peer_count: how many they are.
        before: the same device or host before the onset, or None.
        deviates: whether it speaks for the component.
        since: whether it was measured after the onset: only then its silence means anything.
        weight: the rule's, less if it was so before the onset too.
    """

    rule: Rule
    reading: Reading
    peers: float | None
    peer_count: int
    before: float | None
    deviates: bool
    since: bool
    weight: float


def observe(incident: Incident, readings: Sequence[Reading]) -> list[Observation]:
    """Returns what can be said of each rule; rules without readings are left out."""
    sorted_out = _Sorted(incident, readings)
    found: list[Observation] = []
    for rule in RULES:
        if rule.kinds and incident.kind not in rule.kinds:
            continue
        if any(sorted_out.mine[signal] for signal in rule.unless):
            continue
        mine = sorted_out.mine[rule.signal]
        judged = [
            said
            for reading in mine
            if not rule.details or reading.detail in rule.details
            if (said := _judge(rule, reading, sorted_out, incident)) is not None
        ]
        if not judged:
            continue
        worst = max(judged, key=lambda o: (o.deviates, o.weight, _size(o)))
        loud = rule.way in {"more", "event", "on"} and SIGNALS[rule.signal].form != "share"
        few = 2 * sum(o.deviates for o in judged) < len(judged)
        # What slows a whole group shows on most of it, unless it is a link that all wait for.
        link = loud or rule.component == "pcie"
        if not (sorted_out.everybody and worst.deviates and few and not link):
            found.append(worst)
    return found


class _Sorted:
    def __init__(self, incident: Incident, readings: Iterable[Reading]) -> None:
        ranks, hosts = set(incident.culprit.ranks), incident.culprit.hosts
        self.everybody = not ranks
        self.mine: defaultdict[str, list[Reading]] = defaultdict(list)
        self.others: defaultdict[tuple[str, str], list[Reading]] = defaultdict(list)
        self.past: dict[tuple[str, str, int, str], Reading] = {}
        for r in readings:
            own = self.everybody or (
                r.rank in ranks
                if r.rank != UNKNOWN
                else any(hosts_agree(r.host, host) for host in hosts)
            )
            if r.phase == "during":
                if own:
                    self.mine[r.signal].append(r)
                else:
                    self.others[r.signal, r.detail].append(r)
            elif own:
                self.past[r.signal, r.detail, r.rank, r.host] = r


def _judge(
    rule: Rule, reading: Reading, sorted_out: _Sorted, incident: Incident
) -> Observation | None:
    per_time = SIGNALS[reading.signal].form == "count"

    def comparable(other: Reading) -> float:
        return other.value * reading.seconds / other.seconds if per_time else other.value

    others = [comparable(r) for r in sorted_out.others[reading.signal, reading.detail]]
    past = sorted_out.past.get((reading.signal, reading.detail, reading.rank, reading.host))
    peers = median(others) if others else None
    before = comparable(past) if past else None
    reference = peers if peers is not None else before
    if rule.way in {"below", "above"} and reference is None:
        return None
    deviates = _deviates(rule, reading.value, reference)
    usual = peers is not None and before is not None and not _deviates(rule, reading.value, before)
    weight = min(rule.weight, WEAK) if deviates and usual else rule.weight
    since = rule.way != "event" and reading.end_ns >= incident.first_seen
    return Observation(
        rule, reading, peers, len(others), before, deviates=deviates, since=since, weight=weight
    )


def _deviates(rule: Rule, value: float, reference: float | None) -> bool:
    if rule.way == "event":
        return True
    usual = reference or 0.0
    if rule.way == "below":
        return value <= usual * (1 - rule.least)
    if rule.way == "above":
        return value >= usual + rule.least
    if rule.way == "on":
        return value >= 0.5 > usual
    return value >= rule.least and value >= _TIMES * usual


def _size(observation: Observation) -> float:
    usual = observation.peers if observation.peers is not None else observation.before
    return abs(observation.reading.value - (usual or 0.0))
