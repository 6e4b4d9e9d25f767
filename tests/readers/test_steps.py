"""Steps come from marks: numbered, counted, or none at all."""

from __future__ import annotations

import numpy as np
import pytest

from kat_otel.readers.steps import (
    choose_family,
    find_marks,
    step_at,
    step_in_file_name,
)


def marks(names: list[str], starts: list[int], default: int = 0):
    return find_marks(choose_family(names), names, np.array(starts, np.int64), default)


def test_numbered_marks_keep_their_numbers_and_are_put_in_order():
    found = marks(["ProfilerStep#8", "ProfilerStep#7"], [200, 100])
    assert found.step.tolist() == [7, 8]
    assert found.start_ns.tolist() == [100, 200]


def test_engine_marks_are_counted():
    names = ["execute_context_1(888)_generation_0(0)", "execute_context_0(0)_generation_4(4)"]
    assert marks(names, [10, 20]).step.tolist() == [0, 1]
    assert marks(["step[DECODE bs=32]", "step[EXTEND bs=1 toks=9]"], [10, 20]).step.tolist() == [
        0,
        1,
    ]


def test_the_surest_family_rules_alone():
    family = choose_family(["execute_context_1(1)", "ProfilerStep#3", "forward"])
    assert family is not None
    assert family.match("ProfilerStep#3")
    assert choose_family(["forward", "aten::mm", "Optimizer.step#Adam.step"]) is None


def test_without_marks_all_is_one_step():
    assert step_at(marks([], [], default=12), np.array([5, 500])).tolist() == [12, 12]


def test_work_between_marks_belongs_to_the_earlier_one_and_before_all_to_the_first():
    found = marks(["ProfilerStep#7", "ProfilerStep#8"], [100, 200])
    assert step_at(found, np.array([0, 100, 199, 200, 999])).tolist() == [7, 7, 7, 8, 8]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("worker0_step_12.1694128201545.pt.trace.json.gz", 12),
        ("trace-step3.json", 3),
        ("stepfather_1.json", None),
        ("worker0.json", None),
    ],
)
def test_a_file_name_may_tell_the_step(name, step):
    assert step_in_file_name(name) == step
