"""A detector made from its state says what it would have said; a bad state is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kat_otel.lmdia.decode import LLAMA_70B, decode_program, workers
from kat_otel.lmdia.inject import slow_collectives, slow_rank
from kat_otel.lmdia.program import Program
from kat_otel.lmdia.recording import Group, record
from kat_otel.spans import SpanTable
from kat_otel.ttad import state
from kat_otel.ttad.detector import Detector
from kat_otel.ttad.history import Shape
from kat_otel.ttad.settings import Settings
from kat_otel.ttad.state import MAX_BYTES, restore, snapshot
from kat_otel.verdict import Report

QUICK = Settings(min_history=2, history_steps=6, resolve_after=3)
PROGRAM = decode_program(replace(LLAMA_70B, layers=3), workers(4))
STEPS = 16


def faults() -> dict[str, Callable[[int], Program]]:
    """A fault from step 4 on, gone at 10: opened before the cut at 7, resolved after it."""

    def during(faulty: Program) -> Callable[[int], Program]:
        return lambda step: faulty if 4 <= step < 10 else PROGRAM

    return {
        "healthy": lambda _: PROGRAM,
        "slow rank": during(slow_rank(PROGRAM, 1, 30).program),
        "slow collectives": during(slow_collectives(PROGRAM, 3.0).program),
    }


@pytest.fixture(scope="module", params=list(faults()))
def steps(request: pytest.FixtureRequest) -> list[SpanTable]:
    table = record(Group(PROGRAM, 5), range(STEPS), program_at=faults()[request.param])
    return [table.take(table.step == step) for step in range(STEPS)]


def judged(detector: Detector, steps: list[SpanTable]) -> Iterator[Report]:
    """Reports as they were when given: the detector goes on with their incidents."""
    return (msgspec.convert(msgspec.to_builtins(detector.judge(s)), Report) for s in steps)


@pytest.mark.parametrize("cut", [1, 3, 7, 12])
def test_a_sequence_cut_in_two_gives_the_reports_of_the_whole(
    steps: list[SpanTable], cut: int
) -> None:
    whole = list(judged(Detector(QUICK), steps))
    before = Detector(QUICK)
    reports = list(judged(before, steps[:cut]))
    reports += judged(restore(snapshot(before), QUICK), steps[cut:])
    assert reports == whole


def test_an_incident_keeps_its_id_and_its_life() -> None:
    table = record(Group(PROGRAM, 5), range(12), program_at=faults()["slow rank"])
    detector = Detector(QUICK)
    seen: list[Report] = []
    for step in range(12):
        detector = restore(snapshot(detector), QUICK)  # a process that dies after every step
        seen += judged(detector, [table.take(table.step == step)])
    life = [i for report in seen for i in report.incidents]
    assert {i.id for i in life} == {life[0].id}
    assert [i.occurrences for i in life] == [1, 2, 3, 4, 5, 6]
    assert life[-1].steps == [4, 5, 6, 7, 8, 9]
    assert [i.status for i in life] == ["open", *["ongoing"] * 5]


def test_a_snapshot_of_what_was_restored_is_the_same_bytes(steps: list[SpanTable]) -> None:
    detector = Detector(QUICK)
    list(judged(detector, steps))
    assert snapshot(restore(snapshot(detector), QUICK)) == snapshot(detector)


def test_medians_alone_give_the_same_verdicts(
    steps: list[SpanTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What large shapes keep: the numbers differ by rounding, the verdicts do not."""
    before = Detector(QUICK)
    list(judged(before, steps[:4]))
    exact, few = snapshot(before), restore(snapshot(before), QUICK)
    monkeypatch.setattr(state, "_EXACT_BYTES", 0)
    for _, shape in before.history.shapes():
        shape.saved = None
    medians = snapshot(before)
    assert len(medians) < len(exact)
    of_exact = [verdicts(r) for r in judged(few, steps[4:])]
    assert [verdicts(r) for r in judged(restore(medians, QUICK), steps[4:])] == of_exact


def verdicts(report: Report) -> list[tuple[object, ...]]:
    return [(i.id, i.status, i.kind, i.culprit.ranks, i.page) for i in report.incidents]


def test_other_settings_keep_the_latest_steps() -> None:
    detector = Detector(QUICK)
    fill(detector, ranks=2, nodes=3, steps=6)
    (_, shape), *_ = restore(snapshot(detector), replace(QUICK, history_steps=4)).history.shapes()
    assert shape.limit == shape.count == 4
    (_, original), *_ = detector.history.shapes()
    np.testing.assert_array_equal(shape.durations, original.durations[2:])


def fill(detector: Detector, *, ranks: int, nodes: int, steps: int, shapes: int = 1) -> None:
    rng = np.random.default_rng(0)
    for number in range(shapes):
        size = detector.history.ring(nodes, ranks)
        streams, rank = np.zeros(nodes, np.int32), np.arange(ranks, dtype=np.int32)
        work = np.arange(number, number + nodes, dtype=np.int64)
        shape = Shape(
            streams=streams,
            names=[f"gemm {i % 100}" for i in range(nodes)],
            ranks=rank,
            limit=size,
            durations=rng.integers(1_000, 50_000, (size, nodes, ranks)).astype(np.float64),
            transfers=rng.normal(20_000, 100, (size, nodes)),
            count=min(steps, size),
        )
        detector.history.adopt((streams.tobytes(), work.tobytes(), rank.tobytes()), shape)


@pytest.mark.parametrize(("ranks", "most"), [(8, 1_400_000), (512, 2_200_000)])
def test_a_shape_of_1000_nodes_takes_little(ranks: int, most: int) -> None:
    detector = Detector()
    fill(detector, ranks=ranks, nodes=1000, steps=32)
    assert len(snapshot(detector)) < most


def test_large_medians_are_kept_within_half_a_nanosecond_and_so_is_their_weight() -> None:
    detector = Detector()
    fill(detector, ranks=512, nodes=1000, steps=32)
    (_, before), (_, after) = (
        *detector.history.shapes(),
        *restore(snapshot(detector)).history.shapes(),
    )
    assert after.usual().steps == before.usual().steps == 7
    nodes = np.arange(1000)
    np.testing.assert_allclose(
        after.usual().duration_of(nodes, 3), before.usual().duration_of(nodes, 3), atol=0.5
    )


def test_a_state_is_bounded_and_the_least_used_shapes_go_first() -> None:
    detector = Detector()
    fill(detector, ranks=4096, nodes=500, steps=1, shapes=8)
    data = snapshot(detector)
    assert len(data) <= MAX_BYTES
    kept = [key for key, _ in restore(data).history.shapes()]
    assert kept == [key for key, _ in detector.history.shapes()][-len(kept) :]
    assert 1 <= len(kept) < 8


# --- bytes that are not to be trusted ------------------------------------------------------


@pytest.fixture(scope="module")
def good() -> bytes:
    table = record(Group(PROGRAM, 5), range(7), program_at=faults()["slow rank"])
    detector = Detector(QUICK)
    list(judged(detector, [table.take(table.step == step) for step in range(7)]))
    return snapshot(detector)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not the state"),
        (b"KATSTAT", "version none"),
        (b"KATSTAT\x03rest", "version 03, not 02"),
        (b"KATSTAT\x02", "damaged"),
        (b"KATSTAT\x02" + b"\x91" * 100_000, "damaged"),
        (b"KATSTAT\x02\xdd\xff\xff\xff\xff", "damaged"),
        (bytes(MAX_BYTES + 1), "more than"),
    ],
)
def test_what_is_no_state_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        restore(data)


def corrupted(good: bytes, changes: dict[str, object]) -> bytes:
    content = msgspec.msgpack.decode(good[8:])
    content["shapes"][0].update(changes)
    return good[:8] + msgspec.msgpack.encode(content)


@pytest.mark.parametrize(
    "changes",
    [
        {"kept": 2},
        {"kept": 1},
        {"steps": 10_001},
        {"steps": 0},
        {"width": "O"},
        {"width": "<f8"},
        {"durations": b""},
        {"transfers": b"123"},
        {"streams": b""},
        {"ranks": b""},
        {"ranks": bytes(16)},
        {"work": b"12345678"},
        {"names": []},
        {"name": b"\xff" * 4},
        {"surplus": 1},
    ],
)
def test_a_shape_that_does_not_fit_together_is_refused(
    good: bytes, changes: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match="damaged state"):
        restore(corrupted(good, changes), QUICK)


def test_times_must_be_finite(good: bytes) -> None:
    size = len(msgspec.msgpack.decode(good[8:])["shapes"][0]["transfers"])
    nans = np.full(size // 8, np.nan).tobytes()
    with pytest.raises(ValueError, match="no times"):
        restore(corrupted(good, {"transfers": nans}), QUICK)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_mutated_bytes_are_refused_or_judged_with(good: bytes, data: st.DataObject) -> None:
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(8, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    del raw[data.draw(st.sampled_from([len(raw), len(raw), data.draw(st.integers(0, len(raw)))])) :]
    try:
        detector = restore(bytes(raw), QUICK)
    except ValueError:
        return
    assert len(snapshot(detector)) <= MAX_BYTES
