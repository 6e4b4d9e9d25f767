"""Examples: a truth that was injected, splits that share nothing, a fifth of abstentions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from kat_otel.adapt.answers import true_answer
from kat_otel.adapt.cases import from_traces, play, simulated
from kat_otel.adapt.examples import SPLITS, Example, Made, make, pack_of
from kat_otel.adapt.files import CARD, read_split, write
from kat_otel.adapt.tasks import HELD_OUT, TASKS
from kat_otel.adapt.wording import OWN, TRAINED, UNSEEN
from kat_otel.analyzer.check import check
from kat_otel.analyzer.knowledge import UNEXPLAINED, embedded
from kat_otel.errors import ConfigError

COUNT = 60


@pytest.fixture(scope="module")
def made() -> Made:
    return make([simulated()], COUNT, seed=3)


def of(made: Made, split: str) -> list[Example]:
    return [example for example in made.examples if example.split == split]


def test_every_truth_is_a_cause_of_the_knowledge_and_every_held_out_task_is_a_task() -> None:
    known = {cause.id for cause in embedded().causes}
    assert {task.truth for task in TASKS} <= known
    assert {task.name for task in TASKS} >= HELD_OUT
    assert len({task.name for task in TASKS}) == len(TASKS)
    trained = {task.truth for task in TASKS if task.name not in HELD_OUT}
    assert {task.truth for task in TASKS if task.name in HELD_OUT} <= trained


def test_each_split_has_its_size_and_a_fifth_abstains(made: Made) -> None:
    for split in set(SPLITS) - {"test_real"}:
        wanted = COUNT if split == "train" else COUNT // 6
        mine = of(made, split)
        assert len(mine) == wanted, split
        assert sum(example.truth.abstained for example in mine) == round(wanted / 5)


def test_splits_share_no_seed_no_text_and_no_held_out_task_or_wording(made: Made) -> None:
    texts = Counter(example.messages[1]["content"] for example in made.examples)
    assert set(texts.values()) == {1}
    for one in SPLITS:
        for other in SPLITS:
            if one < other:
                seeds = [{e.seed for e in of(made, split)} for split in (one, other)]
                assert not seeds[0] & seeds[1], (one, other)
    assert {e.task for e in of(made, "test_tasks")} <= HELD_OUT
    assert not {e.task for e in of(made, "train")} & HELD_OUT
    assert {e.wording for e in of(made, "train")} <= set(TRAINED)
    assert {e.wording for e in of(made, "test_wording")} <= set(UNSEEN)
    assert {e.wording for e in of(made, "test_as_sent")} == {OWN}


def test_the_right_answer_is_grounded_and_never_longer_than_it_needs(made: Made) -> None:
    for example in made.examples:
        assert check(example.truth, pack_of(example)) == []
        assert [message["role"] for message in example.messages] == ["system", "user", "assistant"]
        assert list(json.loads(example.messages[-1]["content"])) == [
            "root_cause",
            "component",
            "culprit_ranks",
            "causal_chain",
            "hypotheses",
            "actions",
            "confidence",
            "abstained",
        ]


def test_what_is_asked_as_sent_is_what_the_product_sends(made: Made) -> None:
    for example in of(made, "test_as_sent"):
        assert example.messages[1]["content"] == pack_of(example).text


def test_in_training_the_first_cause_is_right_no_more_often_than_by_chance(made: Made) -> None:
    """The detector puts its favourite first: a model that learns the place learns nothing."""
    places = Counter[int]()
    for example in of(made, "train"):
        text = example.messages[1]["content"]
        causes = text.partition("Causes that come in question:\n")[2].partition("\n\n")[0]
        names = [line.split(" ", 1)[0] for line in causes.splitlines()]
        places[names.index(example.truth.root_cause)] += 1
    assert places[0] < 0.55 * COUNT
    assert len(places) > 2


def test_the_same_call_makes_the_same_examples(made: Made) -> None:
    again = make([simulated()], COUNT, seed=3)
    assert [e.id for e in again.examples] == [e.id for e in made.examples]
    assert [e.messages for e in again.examples] == [e.messages for e in made.examples]
    assert make([simulated()], COUNT, seed=4).examples[0].messages != made.examples[0].messages


def test_a_sign_of_a_part_that_cannot_have_had_the_effect_is_told_and_is_not_the_answer() -> None:
    (task,) = [task for task in TASKS if task.name == "stall/confounded/disk/thermal"]
    (case,) = play(simulated(), [task], 5)
    pack = pack_of_case(case)
    assert any("thermal throttling" in fact.text for fact in pack.facts)
    answer = true_answer(case, pack)
    assert answer.root_cause == "slow_storage"
    assert answer.hypotheses[0].root_cause == "thermal_throttling"
    cited = {name for link in answer.causal_chain for name in link.evidence_ids}
    assert not any("thermal" in fact.text for fact in pack.facts if fact.id in cited)


def test_between_two_parts_that_each_explain_it_nobody_is_named() -> None:
    (task,) = [task for task in TASKS if task.name == "late_launch/torn/steal/swap"]
    (case,) = play(simulated(), [task], 5)
    answer = true_answer(case, pack_of_case(case))
    assert (answer.root_cause, answer.abstained, answer.culprit_ranks) == (UNEXPLAINED, True, [])
    assert {rival.root_cause for rival in answer.hypotheses} == {
        "cpu_contention",
        "host_memory_pressure",
    }


def pack_of_case(case):
    from kat_otel.analyzer.pack import make_pack

    return make_pack(case.incident, case.context)


@pytest.mark.slow
def test_faults_in_real_traces_are_a_split_of_their_own(traces: Path) -> None:
    made = make([simulated(), *from_traces(traces)], COUNT, seed=3)
    real = of(made, "test_real")
    assert {example.base for example in real} == {"dlrm", "vllm"}
    assert {e.base for e in made.examples if e.split != "test_real"} == {"simulated"}


def test_files_come_back_as_they_were_and_the_card_counts_them(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write(made, folder, command="kat adapt data --seed 3")
    write(made, folder, command="kat adapt data --seed 3")  # over itself
    for split in SPLITS:
        assert read_split(folder, split) == of(made, split)
    card = (folder / CARD).read_text()
    assert "`kat adapt data --seed 3`" in card
    assert f"| train | {COUNT} | {COUNT // 5} |" in card


def test_a_folder_with_other_files_is_left_alone(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(ConfigError, match="holds other files"):
        write(made, tmp_path, command="")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_line_that_is_no_example_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match=r"train\.jsonl, line 1: no example"):
        read_split(tmp_path, "train")
    with pytest.raises(ConfigError, match="make examples: kat adapt data"):
        read_split(tmp_path, "validation")
