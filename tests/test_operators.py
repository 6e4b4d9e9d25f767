"""What operators say: what a silence speaks of, and labels that read back."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kat_otel.operators import Said, Silence, feedback_of, labels, read_labels
from tests.report.live_samples import incident

LLAMA = "llama"
INCIDENT = incident()  # rank 5, late_launch, host_cpu


def silence(**said) -> Silence:
    return Silence(id="0", begin_unix_nano=0, end_unix_nano=1, **said)


RIGHT = {
    "incident": INCIDENT.id,
    "instance": LLAMA,
    "kind": INCIDENT.kind,
    "component": INCIDENT.component,
    "ranks": tuple(INCIDENT.culprit.ranks),
}
WRONG = {
    "incident": "another",
    "instance": "qwen",
    "kind": "regression",
    "component": "nic",
    "ranks": (99,),
}


@given(st.sets(st.sampled_from(sorted(RIGHT)), min_size=1), st.data())
def test_all_that_is_said_must_hold(named, data):
    assert silence(**{name: RIGHT[name] for name in named}).matches(LLAMA, INCIDENT)
    wrong = data.draw(st.sampled_from(sorted(named)))
    said = {name: RIGHT[name] for name in named} | {wrong: WRONG[wrong]}
    assert not silence(**said).matches(LLAMA, INCIDENT)


@given(st.sets(st.integers(0, 9)), st.sets(st.integers(0, 9), min_size=1))
def test_a_silent_rank_hides_no_other_culprit(culprits, silent):
    culprit = msgspec.structs.replace(INCIDENT.culprit, ranks=sorted(culprits))
    found = msgspec.structs.replace(INCIDENT, culprit=culprit)
    hides = silence(ranks=tuple(silent)).matches(LLAMA, found)
    assert hides == (bool(culprits) and culprits <= silent)


def test_it_says_what_it_silences():
    assert silence(instance=LLAMA, ranks=(3, 5)).target == "instance llama, rank 3, 5"
    assert silence().target == ""


def test_labels_carry_the_verdict_and_the_whole_report():
    said = Said(incident=INCIDENT.id, verdict="false", note="planned\nmaintenance", by="ann")
    lines = labels([feedback_of(said, LLAMA, INCIDENT, 7)] * 2)
    first, second = read_labels(lines.splitlines(keepends=True))
    assert first == second
    assert first.report == INCIDENT
    assert (first.verdict, first.note, first.by) == ("false", "planned\nmaintenance", "ann")
    assert json.loads(lines.splitlines()[0])["schema"] == "kat.feedback/v1"


def test_a_line_that_is_no_label_is_refused():
    with pytest.raises(msgspec.ValidationError, match="verdict"):
        list(read_labels([b'{"incident_id": "a", "instance": "b", "verdict": "perhaps"}']))
