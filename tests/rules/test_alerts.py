"""Every alert fires where it should, with the text that a person reads, and only there."""

from __future__ import annotations

import pytest

from tests.rules.budget_cases import BUDGET_CASES
from tests.rules.incident_cases import INCIDENT_CASES
from tests.rules.processor_cases import PROCESSOR_CASES
from tests.rules.promtool import Case, fires, is_quiet
from tests.rules.reading import ALERTS

CASES = [*INCIDENT_CASES, *BUDGET_CASES, *PROCESSOR_CASES]
EVERY_CASE = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.alert}-{case.severity}"
)


def test_every_alert_has_a_unit_test():
    assert {(case.alert, case.severity) for case in CASES} == set(ALERTS)


@EVERY_CASE
def test_it_fires_with_its_text(case: Case, tmp_path):
    fires(case, tmp_path)


@EVERY_CASE
def test_it_is_quiet_beside_it(case: Case, tmp_path):
    is_quiet(case, tmp_path)


@pytest.mark.parametrize("held", [fires, is_quiet])
def test_a_case_that_is_wrong_is_noticed(held, tmp_path):
    (right,) = (case for case in CASES if case.alert == "KatProcessorAbsent")
    wrong = Case(right.alert, right.severity, {"up": "1x20"}, [right.fires], "15m", "Not this.")
    with pytest.raises(AssertionError, match="FAILED"):
        held(wrong, tmp_path)
