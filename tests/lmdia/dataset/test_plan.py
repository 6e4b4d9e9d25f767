"""The plan: the same for everybody, and nothing in it that cannot be told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kat_otel.lmdia.dataset.plan import ALWAYS, GRID, SIZES, Subject, fingerprint, plan

ONE = Subject(
    source="m.vllm.decode",
    split="test",
    scenarios=("gpu_instability", "kernel_regression"),
    confounders=("warm_up",),
    shared=frozenset({"kernel_regression"}),
)
TWO = Subject(source="m.sglang.decode", split="train", scenarios=("cpu_swap",), confounders=())


def test_sizes_say_how_many_cases_a_source_has() -> None:
    for size, (points, healthy) in SIZES.items():
        cases = plan([ONE], 1, size)
        full = points == len(GRID)
        shared = points - 1 if full else points  # never there from the beginning
        assert sum(c.part == "fault" for c in cases) == points + shared
        assert sum(c.part == "confounder" for c in cases) == 1
        assert sum(c.part == "healthy" for c in cases) == healthy


@given(st.integers(0, 2**31))
def test_what_all_ranks_share_is_never_there_from_the_beginning(seed: int) -> None:
    for case in plan([ONE], seed, "full"):
        if case.scenario == "kernel_regression":
            assert case.lasting != ALWAYS


@given(st.integers(0, 2**31), st.sampled_from(sorted(SIZES)))
def test_a_source_has_its_cases_whoever_else_is_there(seed: int, size: str) -> None:
    alone = plan([ONE], seed, size)  # type: ignore[arg-type]
    beside = plan([TWO, ONE], seed, size)  # type: ignore[arg-type]
    assert [c for c in beside if c.source == ONE.source] == alone
    assert len({c.name for c in beside}) == len({c.seed for c in beside}) == len(beside)


def test_the_fingerprint_says_which_plan_it_is() -> None:
    cases = plan([ONE, TWO], 1, "standard")
    assert fingerprint(cases) == fingerprint(plan([ONE, TWO], 1, "standard"))
    assert fingerprint(cases) != fingerprint(plan([ONE, TWO], 2, "standard"))
    assert fingerprint(cases) != fingerprint(cases[:-1])
