"""An answer is taken only if all that it names exists and all that it says is cited."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.analyzer import embedded
from kat_otel.analyzer.answer_schema import Answer, answer_schema
from kat_otel.analyzer.check import Problem, check, object_in
from kat_otel.analyzer.compose import composed
from kat_otel.analyzer.context import context_of
from kat_otel.analyzer.pack import make_pack
from kat_otel.analyzer.quantities import numbers_in
from tests.analyzer.incidents import fact, late_launch, report, steal

INCIDENT = late_launch(more=(steal(),))
PACK = make_pack(INCIDENT, context_of(report(INCIDENT)))


def good(**changes: Any) -> dict[str, Any]:
    """An answer that is grounded."""
    return {
        "root_cause": "cpu_contention",
        "component": "host_cpu",
        "culprit_ranks": [7],
        "causal_chain": [
            {"evidence_ids": ["H1", "E3"], "claim": "The process does not get its CPU"},
            {"evidence_ids": ["E1", "E2"], "claim": "so rank 7 arrives last and the others wait"},
        ],
        "hypotheses": [
            {"root_cause": "process_pause", "evidence_for": ["E3"], "evidence_against": ["H1"]}
        ],
        "actions": ["A3", "A1"],
        "confidence": "high",
        "abstained": False,
        "summary": "Others take the CPU of rank 7, which launches late on N1.",
    } | changes


def claims(text: str, *ids: str) -> dict[str, Any]:
    link = {"evidence_ids": list(ids or ("H1", "E3")), "claim": text}
    return good(causal_chain=[link, {"evidence_ids": ["H1"]}], summary="")


def reasons(answer: dict[str, Any]) -> set[str]:
    found = object_in(json.dumps(answer))
    return {found.reason} if isinstance(found, Problem) else {p.reason for p in check(found, PACK)}


def test_a_grounded_answer_is_taken_and_fits_the_schema():
    assert reasons(good()) == set()
    jsonschema.validate(good(), answer_schema(PACK))
    less = {k: v for k, v in good().items() if k != "summary"}
    less["causal_chain"] = [{"evidence_ids": ["H1"]}]
    jsonschema.validate(less, answer_schema(PACK, prose=False))
    assert reasons(less) == set()


WRONG = [
    ("cause_not_cited", good(causal_chain=[{"evidence_ids": ["C1", "E2"]}], summary="")),
    ("unknown_cause", good(root_cause="gremlins")),
    ("unknown_cause", good(root_cause="power_cap", component="gpu_power")),
    ("component_not_of_cause", good(component="host_memory")),
    ("unknown_evidence", claims("It is so", "E99")),
    (
        "unknown_evidence",
        good(hypotheses=[{"root_cause": "process_pause", "evidence_for": ["E77"]}]),
    ),
    ("unknown_action", good(actions=["A99"])),
    ("culprit_outside", good(culprit_ranks=[3])),
    ("culprit_outside", good(culprit_ranks=[7, 11])),
    ("culprit_outside", claims("rank 11 does not get its CPU")),
    ("culprit_outside", claims("rank 3 is the culprit", "C1")),
    ("abstention_unclear", good(abstained=True)),
    ("abstention_unclear", good(root_cause="unexplained", component="unknown")),
    ("abstention_unclear", good(root_cause="unexplained", component="unknown", abstained=True)),
    ("nothing_cited", good(causal_chain=[])),
    ("wrong_form", good(causal_chain=[{"evidence_ids": [], "claim": "x"}])),
    ("wrong_form", good(confidence="certain")),
    ("wrong_form", good(summary="x" * 401)),
    ("wrong_form", {"answer": 42}),
    ("number_not_cited", claims("The process waits 5 ms")),
    ("number_not_cited", claims("The process waits 91 ms")),
    ("number_not_cited", claims("It is twice as slow")),
    ("number_not_cited", claims("It is ten times as slow")),
    ("number_not_cited", good(summary="It costs 12 seconds")),
    ("number_not_cited", claims("the others wait 1.86 ms", "H1")),
    ("name_not_cited", claims("as E4 says")),
    ("name_not_cited", claims("K7 is slow")),
    ("name_not_cited", claims("as an H100 does")),
    ("part_not_cited", claims("The NVLink has errors")),
    ("part_not_cited", claims("The GPU is too hot")),
    ("part_not_cited", good(summary="A bug in the driver")),
    ("unsafe_text", claims("see http://evil.example")),
    ("unsafe_text", claims("run rm -rf / now")),
    ("unsafe_text", claims("<|im_start|>system")),
    ("unsafe_text", claims("an\u202eexe")),
    ("unsafe_text", claims("`reboot`")),
    ("unsafe_text", claims("the token=abcdefgh12345")),
]


@pytest.mark.parametrize(("reason", "answer"), WRONG)
def test_what_is_wrong_is_named_by_its_reason(reason: str, answer: dict[str, Any]):
    assert reason in reasons(answer)


@pytest.mark.parametrize(
    "answer",
    [
        claims("91 % of the lateness lies in launches"),
        claims("0.867 ms of it lies in launches that come late"),
        claims("rank 7 waits for its CPU on N1"),
        claims("As H1 says, the hypervisor takes the CPU"),
        claims("ranks 0-6 wait", "C1", "E2"),
        good(root_cause="unexplained", component="unknown", abstained=True, culprit_ranks=[]),
    ],
)
def test_what_the_facts_say_may_be_said(answer: dict[str, Any]):
    assert reasons(answer) == set()


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(good()),
        f"Sure! Here it is:\n```json\n{json.dumps(good(), indent=2)}\n```\nHope it helps {{}}",
        f"<think>maybe {{nvlink}}?</think>{json.dumps(good())}",
        f"{{not json}} {json.dumps(good())}",
    ],
)
def test_the_object_is_found_in_whatever_stands_around_it(text: str):
    assert object_in(text) == msgspec.convert(good(), Answer)


@pytest.mark.parametrize(
    "text", ["", "no", "{", "[1]", "{" * 5_000, "[" * 100_000, '{"a": ' * 30_000]
)
def test_where_there_is_none_that_is_said(text: str):
    assert getattr(object_in(text), "reason", None) == "no_json"


@given(st.text(max_size=300))
def test_no_text_breaks_the_check(text: str):
    for answer in (claims(text[:240]), good(summary=text)):
        found = object_in(json.dumps(answer))
        assert isinstance(found, Problem) or isinstance(check(found, PACK), list)


@given(st.integers(0, 10**6), st.sampled_from(["", " ms", " %", " times", " MHz", " µs"]))
def test_a_number_passes_if_and_only_if_a_cited_fact_has_it(number: int, unit: str):
    cited = " ".join(f.text for f in PACK.facts if f.id in {"H1", "E3"})
    said = f"it is {number}{unit} there"
    has = numbers_in(said).quantities <= numbers_in(cited).quantities
    assert ("number_not_cited" not in reasons(claims(said))) == has


@given(st.sampled_from([f for f in PACK.facts if f.source]))
def test_every_fact_may_be_said_word_for_word_where_it_is_cited(one):
    assert reasons(claims(one.text[:240], one.id)) == set()


def diagnosis(answer: dict[str, Any], incident=INCIDENT, pack=PACK):
    return composed(msgspec.convert(answer, Answer), incident, pack, embedded())


def test_numbers_and_names_are_put_into_what_is_taken():
    said = diagnosis(good())
    assert said.summary.startswith(
        "rank 7: the process that launches the work does not get its CPU — "
    )
    assert "launches late on node-0" in said.summary
    first = said.causal_chain[0]
    assert first.claim.startswith(
        "The process does not get its CPU: rank 7, node-0: CPU time stolen"
    )
    assert "91 % of the lateness" in first.claim
    assert first.evidence_ids == ["H1", "E3"]
    assert said.actions[0].startswith("Pin the rank's process")
    assert "on node-0" not in said.actions[0]
    assert (said.mode, said.component) == ("model", "host_cpu")


def test_confidence_is_never_above_the_detectors():
    assert diagnosis(good()).confidence == pytest.approx(0.7)
    assert diagnosis(good(confidence="medium")).confidence == pytest.approx(0.42)
    other = good(root_cause="process_pause", component="host_memory")
    assert diagnosis(other).confidence == pytest.approx(0.2)


def test_facts_against_a_cause_cannot_be_hidden_and_halve_its_confidence():
    slow = fact("E6", "walk_kernels",
                "walked back from its late arrivals, 40 % of the lateness of "
                "rank 7 (380 µs) lies in kernels that run longer than on the peers",
                380e3)  # fmt: skip
    incident = late_launch(more=(slow,))
    pack = make_pack(incident)
    said = diagnosis(
        good(
            root_cause="late_host",
            causal_chain=[{"evidence_ids": ["E3"], "claim": ""}],
            hypotheses=[],
            actions=[],
            summary="",
        ),
        incident,
        pack,
    )
    assert said.hypotheses[0].evidence_against == ["E6"]
    assert said.confidence == pytest.approx(0.35)
    assert said.causal_chain[0].claim.startswith(
        "The host launches late and the GPU waits for it: "
    )


def test_competing_causes_keep_what_speaks_for_and_against_them():
    first, second = diagnosis(good()).hypotheses
    assert (first.root_cause, first.evidence_for) == ("cpu_contention", ["H1", "E3"])
    assert (second.root_cause, second.probability) == ("process_pause", 0.2)
    assert (second.evidence_for, second.evidence_against) == (["E3"], ["H1"])


def test_facts_beside_the_evidence_are_told_with_it():
    said = diagnosis(claims("The others wait for it", "C2", "H1"))
    assert [told.id for told in said.context] == ["C2"]
    assert "2.00 ms shorter" in said.context[0].text
