"""The embedded diagnosis: one of a closed list of causes, said with the facts at hand or not."""

from __future__ import annotations

import itertools
import re
import time
from typing import get_args

import msgspec
import pytest

from kat_otel.analyzer import diagnose, embedded
from kat_otel.verdict import (
    NOTHING_UNUSUAL,
    Component,
    ComponentCandidate,
    Culprit,
    Evidence,
    Incident,
    Kind,
)


def fact(number: str, signal: str, text: str = "", value: float | None = 7.0) -> Evidence:
    text = text or f"{signal} is {value} on rank 7"
    return Evidence(id=number, text=text, signal=signal, value=value, expected=0.0, unit=None)


LATE = (
    fact("E1", "arrival_excess", "rank 7 arrives last, by up to 2.1 ms"),
    fact("E2", "wait", "the others wait 2.0 ms each"),
    fact("E3", "walk_launch", "91 % of the lateness lies in launches"),
    fact("E4", "kernel_time", "kernel time of rank 7 is normal (+0.3 %)", 0.3),
)
STEAL = fact("H1", "cpu_steal", "rank 7, node-0: CPU steal 31 % of the time")


def incident(
    component: Component = "host_cpu",
    kind: Kind = "late_launch",
    evidence: tuple[Evidence, ...] = LATE,
    *,
    confidence: float = 0.7,
    sure: bool = True,
    host: str = "node-0",
    device: str = "GPU-7",
) -> Incident:
    return Incident(
        id="1", status="open", first_seen=0, last_seen=1, occurrences=1, steps=[1], page=True,
        kind=kind, scope="rank",
        culprit=Culprit(ranks=[7], devices=[device], hosts=[host], sure=sure),
        victims=[0, 1], group=None, link=None, component=component,
        component_candidates=[
            ComponentCandidate(component=component, probability=confidence),
            ComponentCandidate(component="host_memory", probability=0.2),
        ],
        component_confidence=confidence, impact_ns=2_000_000, score=40.0,
        false_alarm_probability=1e-9, spans=[], evidence=list(evidence),
    )  # fmt: skip


def test_a_late_launch_without_hardware_is_laid_to_the_host_that_launches():
    said = diagnose(incident())
    assert (said.root_cause, said.component, said.culprit_ranks) == ("late_host", "host_cpu", [7])
    assert (said.mode, said.abstained) == ("rules", False)
    cause, late, waiting = said.causal_chain
    assert cause.evidence_ids == ["E3", "E4"]
    assert (late.evidence_ids, waiting.evidence_ids) == (["E1"], ["E2"])
    assert "py-spy dump" in said.actions[0]
    assert "on node-0: py-spy dump --pid PID" in said.actions[1]


def test_what_the_hardware_says_makes_the_cause_more_exact():
    said = diagnose(incident(evidence=(*LATE[:2], STEAL, *LATE[2:]), confidence=0.9))
    assert said.root_cause == "cpu_contention"
    assert said.causal_chain[0].evidence_ids[0] == "H1"
    assert "31 %" in said.causal_chain[0].claim
    assert said.confidence == 0.9


def test_what_is_measured_and_unremarkable_speaks_against():
    quiet = fact("H1", "cpu_steal", f"rank 7: {NOTHING_UNUSUAL} host_cpu: CPU steal")
    said = diagnose(incident(evidence=(*LATE, quiet)))
    assert said.root_cause == "late_host", "steal that is not there is no cause"
    assert "H1" not in {one for claim in said.causal_chain for one in claim.evidence_ids}


def test_facts_against_a_cause_are_told_and_halve_the_confidence():
    slow = fact("E5", "walk_kernels", "40 % of the lateness lies in kernels")
    said = diagnose(incident(evidence=(*LATE, slow)))
    assert said.hypotheses[0].evidence_against == ["E5"]
    assert said.confidence == pytest.approx(diagnose(incident()).confidence / 2)


@pytest.mark.parametrize(
    ("unclear", "why"),
    [
        (incident(sure=False), "side unknown"),
        (incident(evidence=()), "no evidence"),
        (incident("unknown"), "no component"),
        (incident(evidence=LATE[:2]), "nothing that was measured"),
    ],
)
def test_it_abstains_where_the_culprit_or_the_cause_is_not_known(unclear, why):
    said = diagnose(unclear)
    assert (said.abstained, said.root_cause, said.confidence) == (True, "unexplained", 0.0)
    assert why in said.summary
    assert said.actions


def test_nobody_is_blamed_where_the_side_is_unknown():
    assert diagnose(incident(sure=False)).culprit_ranks == []


def test_names_that_are_no_names_never_get_into_a_command():
    said = diagnose(incident("gpu_clock", "slow_rank", device="0; rm -rf /", host="$(reboot)"))
    everything = " ".join(said.actions)
    assert "rm -rf" not in everything
    assert "reboot" not in everything


def every_incident():
    patterns = [p for c in embedded().causes for p in (*c.needs, *c.supports, *c.contradicts)]
    signals = sorted({pattern.signal for pattern in patterns})
    for component, kind in itertools.product(get_args(Component), get_args(Kind)):
        alone, five = range(len(signals)), range(0, len(signals), 5)
        for some in [*(signals[i : i + 1] for i in alone), *(signals[i : i + 5] for i in five)]:
            facts = [fact(f"H{n}", s, value=11.5 + n) for n, s in enumerate(some)]
            yield incident(component, kind, (*LATE, *facts), confidence=0.55)


def test_every_claim_cites_facts_that_exist_and_every_number_stands_in_them():
    causes = {cause.id for cause in embedded().causes}
    found = set()
    for one in every_incident():
        said = diagnose(one)
        found.add(said.root_cause)
        facts = {fact.id: fact.text for fact in one.evidence}
        for claim in said.causal_chain:
            assert claim.evidence_ids
            cited = " ".join(facts[name] for name in claim.evidence_ids)
            assert set(re.findall(r"\d[\d.,]*", claim.claim)) <= set(
                re.findall(r"\d[\d.,]*", cited)
            )
        assert set(re.findall(r"\d+", said.summary)) <= {"7"}
        assert said.confidence <= one.component_confidence
        assert said == diagnose(msgspec.convert(msgspec.to_builtins(one), Incident))
    assert found == causes, "causes that no incident can have"


def test_it_takes_less_than_5_ms():
    one = incident(evidence=(*LATE, STEAL))
    diagnose(one)
    took = []
    for _ in range(20):
        begin = time.perf_counter()
        msgspec.to_builtins(diagnose(one))
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.005
