"""An evaluation: every method sees every step, what was said is kept, and a stop loses nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kat_otel.errors import ConfigError
from kat_otel.lmdia.dataset.plan import Case
from kat_otel.lmdia.dataset.played import CannotPlayError, PlayedStep, affected_ids
from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.evaluation.methods import ABLATIONS, TTAD
from kat_otel.lmdia.evaluation.records import Record, read_records
from kat_otel.lmdia.evaluation.run import evaluate, judge
from kat_otel.lmdia.hardware import Request
from kat_otel.lmdia.inject import slow_rank
from kat_otel.lmdia.label import Label, Truth
from kat_otel.lmdia.recording import ZERO_UNIX_NS, Group
from kat_otel.lmdia.table import to_table
from kat_otel.spans import Resource, SpanTable

PROGRAM = decode_program(replace(LLAMA_70B, layers=4), workers(4, instance="run"))
SLOW = slow_rank(PROGRAM, 2, 40.0)
STEPS, ONSET = 14, 10


@dataclass(frozen=True)
class Slowed:
    """Rank 2 gets slow."""

    sick: bool = True
    workers: Sequence[Resource] = PROGRAM.resources

    @property
    def label(self) -> Label:
        truth = Truth(
            kinds=("slow_rank",),
            culprits=(2,),
            hosts=("node-0",),
            victims=(0, 1, 3),
            component="gpu_clock",
            candidates=("gpu_clock", "gpu_power", "gpu_compute"),
            first_step=ONSET,
            last_step=STEPS - 1,
            severity=0.2,
            magnitude=40.0,
            unit="%",
            text="",
        )
        return Label(
            case="slowed",
            task="t",
            part="fault" if self.sick else "healthy",
            scenario="gpu_instability" if self.sick else "healthy",
            steps=tuple(range(STEPS)),
            warm_up=ONSET,
            faults=(truth,) if self.sick else (),
        )

    def steps(self) -> Iterator[PlayedStep]:
        group = Group(PROGRAM, 3)
        for step in range(STEPS):
            sick = self.sick and step >= ONSET
            noisy, times = group.play(step, SLOW.program if sick else PROGRAM)
            zero = ZERO_UNIX_NS + step * 5 * 10**9
            table = to_table(noisy, times, step=step, zero_unix_ns=zero, nonce=1)
            ids = affected_ids(noisy, table, SLOW.fault.affected)
            yield PlayedStep(step, table, (ids[: len(ids) * sick],) if self.sick else ())

    def requests(self) -> Iterator[Request]:
        return iter(())


def _play(case: Case) -> Slowed:
    if case.part == "confounder":
        raise CannotPlayError("the slack hides it")
    return Slowed(sick=case.part == "fault")


class Counting:
    """Another method."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def see(self, table: SpanTable) -> None:
        self.seen.append(int(table.step[0]))

    def scored(self) -> object:
        return self.seen


def _case(name: str, part: str = "fault") -> Case:
    return Case(name=name, source="t", split="test", part=part, scenario="s")  # type: ignore[arg-type]


def _work(case: Case) -> Record:
    return judge(case, _play, opponents=lambda: {"counting": Counting()})


def test_a_case_is_judged_by_every_method() -> None:
    record = judge(_case("a"), _play, ablations=True, opponents=lambda: {"counting": Counting()})
    assert list(record.outcomes) == [TTAD, *ABLATIONS]
    assert bytes(record.opponents["counting"]) == str(list(range(STEPS))).replace(" ", "").encode()
    (found,) = record.outcomes[TTAD].faults
    assert found.found
    assert found.first
    assert found.delay == 0
    assert found.hit == found.cited > 0
    assert record.outcomes[TTAD].false == 0
    assert record.pages is not None
    assert record.pages.faults[0].found
    assert record.steps == STEPS
    assert record.spans > 0


def test_what_cannot_be_played_says_why() -> None:
    record = _work(_case("c", "confounder"))
    assert record.refused == "the slack hides it"
    assert record.outcomes == {}


def test_a_stopped_evaluation_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    cases = [_case("a"), _case("b", "healthy"), _case("c", "confounder")]
    run = evaluate(cases, out, _work)
    first = next(run)
    run.close()  # type: ignore[attr-defined]
    with out.open("ab") as file:
        file.write(b'{"case": {"name": "b", "sour')  # killed while it wrote
    asked: list[str] = []

    def counted(case: Case) -> Record:
        asked.append(case.name)
        return _work(case)

    whole = list(evaluate(cases, out, counted))
    assert asked == ["b", "c"]
    assert [r.case.name for r in whole] == ["a", "b", "c"]
    assert whole[0].outcomes == first.outcomes
    assert read_records(out) == whole
    assert list(evaluate(cases, out, counted)) == whole
    assert asked == ["b", "c"]


def test_a_case_that_is_planned_otherwise_is_judged_anew(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    list(evaluate([_case("a", "healthy")], out, _work))
    other = replace_seed(_case("a", "healthy"))
    (record,) = evaluate([other], out, _work)
    assert record.case == other
    assert len(read_records(out)) == 2


def replace_seed(case: Case) -> Case:
    return Case(name=case.name, source="t", split="test", part=case.part, scenario="s", seed=7)


def test_two_processes_judge_as_one(tmp_path: Path) -> None:
    cases = [_case("a"), _case("b", "healthy"), _case("c", "confounder")]
    alone = {r.case.name: r.outcomes for r in evaluate(cases, tmp_path / "one", _work)}
    beside = {r.case.name: r.outcomes for r in evaluate(cases, tmp_path / "two", _work, jobs=2)}
    assert alone == beside
    assert len(read_records(tmp_path / "two")) == 3


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"a": 1}\n')
    with pytest.raises(ConfigError, match="x, line 1"):
        read_records(tmp_path / "x")
