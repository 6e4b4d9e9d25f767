"""The same facts in other words: every number, unit, alias and rank stays."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from kat_otel.adapt.cases import play, simulated
from kat_otel.adapt.tasks import TASKS
from kat_otel.adapt.wording import OWN, TRAINED, UNSEEN, reworded, user_text
from kat_otel.analyzer.pack import Pack, make_pack

NUMBER = re.compile(r"[KDNI]?\d[\d.,:]*(?<![.,:])")
PEERS = re.compile(r"the \d+ peers' median")
LATE = "the others wait 4.68 ms each for it in this step"


@pytest.fixture(scope="module")
def packs() -> list[Pack]:
    base = simulated()
    found = []
    for fault in dict.fromkeys(task.fault for task in TASKS):
        tasks = [task for task in TASKS if task.fault == fault]
        found += [make_pack(case.incident, case.context) for case in play(base, tasks, 5)]
    return found


def test_no_wording_changes_a_number(packs: list[Pack]) -> None:
    for fact in {fact.text: fact for pack in packs for fact in pack.facts}.values():
        for wording in (*TRAINED, *UNSEEN):
            said = reworded(fact.text, wording)
            told = Counter(NUMBER.findall(PEERS.sub("", said).replace("1/", "")))
            assert told == Counter(NUMBER.findall(PEERS.sub("", fact.text))), (fact.text, said)
            assert "{" not in said
            assert said == said.strip()


def test_what_tells_one_cause_from_another_has_every_wording(packs: list[Pack]) -> None:
    for pack in packs:
        for fact in pack.facts:
            if fact.id[0] == "H" or fact.text.startswith(("walked back", "rank", "the others")):
                said = {reworded(fact.text, wording) for wording in (*TRAINED, *UNSEEN)}
                assert len(said) == len(TRAINED) + len(UNSEEN), fact.text


def test_the_products_own_wording_changes_nothing(packs: list[Pack]) -> None:
    assert all(user_text(pack, OWN) == pack.text for pack in packs)


def test_causes_are_moved_and_nothing_is_lost(packs: list[Pack]) -> None:
    pack = packs[0]
    mixed = {user_text(pack, OWN, np.random.default_rng(seed)) for seed in range(9)}
    assert len(mixed) > 3
    for text in mixed:
        assert sorted(text.split("\n")) == sorted(pack.text.split("\n"))


def test_a_wording_that_there_is_none_of_is_refused() -> None:
    with pytest.raises(ValueError, match="wording 6: there are 0 to 5"):
        reworded(LATE, 6)
