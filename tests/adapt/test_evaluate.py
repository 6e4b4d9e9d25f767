"""How right answers are: scores on answers made by hand, and the command over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kat_otel.adapt.cases import simulated
from kat_otel.adapt.examples import answer_text, make, pack_of
from kat_otel.adapt.files import write
from kat_otel.adapt.scores import Said, scores
from kat_otel.adapt.solvers import by_constant, by_first, by_rules, most_frequent, shown_examples
from kat_otel.analyzer.answer_schema import Answer, Level, Link
from kat_otel.analyzer.check import check
from kat_otel.cli import main
from tests.analyzer.openai_server import Said as Served
from tests.analyzer.openai_server import keeps_schemas, serving


def answer(
    cause: str = "thermal_throttling",
    *chain: str,
    ranks: tuple[int, ...] = (7,),
    sure: Level = "high",
) -> Answer:
    none = cause == "unexplained"
    return Answer(
        root_cause=cause,
        component="unknown" if none else "gpu_clock",
        culprit_ranks=[] if none else list(ranks),
        causal_chain=[Link(evidence_ids=ids.split()) for ids in chain],
        confidence=sure,
        abstained=none,
    )


TRUE = answer("thermal_throttling", "H1 H2", "E3", "E1")
NONE = answer("unexplained")


def test_what_is_all_right_is_all_right():
    found = scores([Said(TRUE, TRUE), Said(NONE, NONE)])
    assert (found.cause, found.cause_f1, found.component, found.culprits) == (1, 1, 1, 1)
    assert (found.cited_precision, found.cited_recall, found.chain) == (1, 1, 1)
    assert (found.abstained_precision, found.abstained_recall) == (1, 1)
    assert (found.covered, found.risk, found.grounded, found.after_check) == (1, 0, 1, 1)


def test_rare_causes_count_as_much_as_frequent_ones():
    rare = Said(answer("power_cap"), TRUE)
    found = scores([*[Said(TRUE, TRUE)] * 9, rare])
    assert found.cause == 0.9
    assert found.cause_f1 == pytest.approx((18 / 19 + 0) / 2)


def test_citations_and_chain_are_of_cases_with_a_cause_alone():
    said = answer("thermal_throttling", "H1 S1", "E1")
    found = scores([Said(TRUE, said), Said(NONE, said)])
    assert found.cited_precision == pytest.approx(2 / 3)
    assert found.cited_recall == pytest.approx(2 / 4)
    assert found.chain == pytest.approx(2 / 3)  # H1 H2 and E1, in order; E3 is not told


def test_a_chain_that_goes_backwards_is_no_chain():
    assert scores([Said(TRUE, answer("thermal_throttling", "E1", "E3", "H1"))]).chain == 1 / 3


def test_where_the_check_refuses_the_rules_count_after_it():
    refused = Said(TRUE, answer("power_cap"), ("cause_not_cited",), "thermal_throttling")
    unread = Said(TRUE, None, ("no_json",), "low_clocks")
    found = scores([refused, unread])
    assert (found.grounded, found.cause, found.after_check) == (0, 0, 0.5)


def test_risk_is_the_wrong_among_the_sure():
    wrong = answer("power_cap", sure="medium")
    found = scores([Said(TRUE, TRUE), Said(TRUE, wrong), Said(TRUE, answer("power_cap"))])
    assert found.covered == pytest.approx(2 / 3)
    assert found.risk == 0.5
    assert scores([Said(TRUE, wrong)]).risk is None


def test_without_answers_there_is_no_score():
    with pytest.raises(ValueError, match="no answers"):
        scores([])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("adapt") / "data"
    write(make([simulated()], 12, seed=2), place, command="test")
    return place


def read(folder: Path, split: str):
    from kat_otel.adapt.files import read_split

    return read_split(folder, split)  # pyright: ignore[reportArgumentType]


def test_the_rules_read_signals_and_predictors_read_nothing(folder: Path):
    asked = read(folder, "test_as_sent")
    rules = scores([by_rules(one) for one in asked])
    usual = scores([by_constant(one, most_frequent(asked)) for one in asked])
    assert rules.cause > usual.cause
    assert rules.grounded == 1
    for one in asked:
        first = by_first(one).answer
        assert first is not None
        assert first.root_cause == pack_of(one).causes[0].id


def test_solved_examples_are_of_different_causes_and_end_with_their_answers(folder: Path):
    turns = shown_examples(read(folder, "train"), 3)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3
    assert len({json.loads(turn["content"])["root_cause"] for turn in turns[1::2]}) == 3


def test_a_model_is_asked_as_the_product_asks_and_scored_beside_the_rules(folder: Path, capsys):
    truth = {one.messages[1]["content"]: one for one in read(folder, "test_as_sent")}

    def right(request):
        assert request["response_format"]["json_schema"]["strict"]
        assert request["messages"][0] == next(iter(truth.values())).messages[0]
        return Served(answer_text(truth[request["messages"][-1]["content"]].truth))

    with serving(keeps_schemas(right)) as server:
        options = ["--data", str(folder), "--split", "test_as_sent", "--show", "2"]
        assert main(["adapt", "evaluate", *options, "--endpoint", server.url, "--model", "m"]) == 0
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows][0::3] == ["embedded rules", "m"]
    for row in rows[3:]:
        assert row[3:8] == ["100", "100", "100", "100", "100 / 100"]
        assert row[-1] == "700 / 90 |"
    assert [len(request["messages"]) for request in server.about[-1:]] == [6]


def test_an_answer_that_is_no_answer_is_counted_and_the_rules_stand(folder: Path, capsys):
    with serving(keeps_schemas(lambda _: Served("It is the network."))) as server:
        options = ["--data", str(folder), "--split", "test_as_sent", "--limit", "3"]
        assert main(["adapt", "evaluate", *options, "--endpoint", server.url, "--model", "m"]) == 0
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines()[2:]]
    rules, model = rows[0], rows[-1]
    assert model[3] == "0"
    assert model[11] == "0"
    assert model[12] == rules[12]


def test_an_endpoint_without_a_model_is_refused(folder: Path, capsys):
    assert main(["adapt", "evaluate", "--data", str(folder), "--endpoint", "http://x/v1"]) == 2
    assert "name both, or neither" in capsys.readouterr().err


def test_without_examples_it_says_how_to_make_them(tmp_path: Path, capsys):
    assert main(["adapt", "evaluate", "--data", str(tmp_path)]) == 2
    assert "kat adapt data" in capsys.readouterr().err


def test_every_truth_passes_the_check_that_models_must_pass(folder: Path):
    for split in ("train", "test_wording"):
        for one in read(folder, split):
            assert check(one.truth, pack_of(one)) == []
