"""Batches of records become closed steps, however they are cut and in whatever order they come."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kat_otel import semconv
from kat_otel.digest import digest_of, encode
from kat_otel.instrumentation.capture.records import Edge, Loss, StepFlag
from kat_otel.instrumentation.identity.worker import Links, Worker
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.marks import LINGER_NS
from kat_otel.instrumentation.steps.tree import StepMaker
from kat_otel.kernels import family
from kat_otel.spans import Resource, SpanKind
from tests.instrumentation.programs import T0, Program, batch, made, named, programs, spelled

KERNEL, LAUNCH, SYNC = SpanKind.KERNEL, SpanKind.LAUNCH, SpanKind.SYNC


def numbers(steps) -> list[tuple[int, int]]:
    return [(one.step, one.micro) for one in steps]


# --- the shape of a step --------------------------------------------------------------------


def test_a_step_is_worker_step_then_calls_then_the_work_that_they_launched():
    program = Program().step(5, 0, 100)
    program.kernel(10, 20, 30, name="gemm", grid=(4, 2, 1), block=(256, 1, 1))
    (step,), _ = made(program.batches())
    table = step.table
    assert (step.step, step.micro, table.step.tolist()) == (5, 0, [5, 5, 5])
    assert named(step) == ["worker step", "cudaLaunchKernel", "gemm"]
    assert table.kind.tolist() == [SpanKind.WORKER_STEP, LAUNCH, KERNEL]
    assert table.parent.tolist() == [-1, 0, 1]
    assert (table.start_ns - T0).tolist() == [0, 10, 20]
    assert table.duration_ns.tolist() == [100, 2, 30]
    assert table.thread.tolist() == [1, 1, -1]
    assert table.stream.tolist() == [-1, -1, 7]
    assert table.correlation.tolist() == [-1, 1, 1]
    assert [table.text(i) for i in table.grid] == ["", "", "4,2,1"]
    assert [table.text(i) for i in table.block] == ["", "", "256,1,1"]


def test_a_worker_step_lasts_until_the_last_work_launched_before_its_end():
    program = Program().step(0, 0, 100)
    program.kernel(90, 150, 50)
    program.kernel(110, 300, 50)  # a sampler, after the hook has returned
    (step,), _ = made(program.batches())
    assert step.table.duration_ns[0] == 200
    assert len(step.table) == 5


def test_copies_and_sets_are_named_as_the_readers_name_them():
    program = Program().step(0, 0, 100)
    copy, fill = program.call(1, name="cudaMemcpyAsync"), program.call(2, name="cudaMemsetAsync")
    program.work("copies", 3, 4, copy, 1, bytes=64, kind=1)
    program.work("sets", 8, 4, fill, 2, bytes=32)
    (step,), _ = made(program.batches())
    assert named(step)[-2:] == ["Memcpy HtoD", "Memset (Device)"]
    assert step.table.kind.tolist()[-2:] == [SpanKind.MEMCPY, SpanKind.MEMSET]
    assert step.table.bytes.tolist()[-2:] == [64, 32]
    assert digest_of(step.table).copy_bytes.tolist() == [64, 0, 0, 0]


def test_ranges_nest_on_their_thread_and_hold_the_calls():
    program = Program().step(0, 0, 100).marker(5, 60, "layer").marker(8, 20, "attention")
    program.marker(5, 60, "elsewhere", thread=2)
    for at in (6, 10, 30, 70):
        program.kernel(at, at + 3)
    (step,), _ = made(program.batches())
    table = step.table
    parents = [table.name_of(p) for p in table.parent[table.kind == LAUNCH]]
    assert parents == ["layer", "attention", "layer", "worker step"]
    assert table.name_of(table.parent[named(step).index("attention")]) == "layer"
    assert table.name_of(table.parent[named(step).index("elsewhere")]) == "worker step"


def test_ranges_that_overlap_hold_what_they_enclose():
    program = Program().step(0, 0, 100).marker(5, 20, "first").marker(10, 40, "second")
    program.kernel(20, 26)  # call of 2: ends within both
    program.kernel(24, 50)  # ends after the first has
    program.kernel(30, 60)  # the first has ended
    (step,), _ = made(program.batches())
    table = step.table
    parents = [table.name_of(p) for p in table.parent[table.kind == LAUNCH]]
    assert parents == ["second", "second", "second"]


def test_calls_that_launch_nothing_are_told_only_if_they_wait_or_are_long():
    program = Program().step(0, 0, 200_000)
    program.call(10, 5, "cudaEventRecord")
    program.call(20, 60_000, "cudaMalloc")
    wait = program.call(70_000, 900, "cudaStreamSynchronize")
    program.other("syncs", 70_001, 889, correlation=wait, kind=3)
    (step,), maker = made(program.batches())
    assert named(step) == ["worker step", "cudaMalloc", "cudaStreamSynchronize"]
    assert step.table.kind.tolist()[1:] == [SpanKind.HOST_OP, SYNC]
    assert maker.counts.left_out == 2  # the short call, and the wait that the call says too
    assert digest_of(step.table).sync_ns == 900


def test_waits_without_a_call_stand_alone_and_waits_of_streams_are_no_host_time():
    program = Program().step(0, 0, 100)
    for kind in (2, 4):
        program.other("syncs", 10, 40, correlation=99, kind=kind)
    (step,), maker = made(program.batches())
    assert step.table.kind.tolist() == [SpanKind.WORKER_STEP, SYNC]
    assert maker.counts.left_out == 1


def test_what_tracing_took_stands_on_the_worker_step():
    program = Program().step(0, 0, 100)
    program.other("overheads", 10, 7)
    (step,), _ = made(program.batches())
    assert step.table.attributes[0][semconv.CAPTURE_OVERHEAD_NS] == 7


def test_mangled_names_are_spelled():
    program = Program().step(0, 0, 100)
    program.kernel(1, 5, name="_ZN2at6native4gemmIfLi4EEEvPT_")
    (step,), _ = made(program.batches())
    assert named(step, KERNEL) == ["void at::native::gemm<float, 4>(float*)"]


def test_a_drivers_call_within_the_runtimes_is_the_same_launch():
    program = Program().step(0, 0, 100)
    correlation = program.kernel(10, 20)
    program.call(11, 1, "cuLaunchKernel", correlation=correlation)
    (step,), maker = made(program.batches())
    assert named(step) == ["worker step", "cudaLaunchKernel", "k"]
    assert maker.counts.left_out == 1


# --- graphs -----------------------------------------------------------------------------------


def test_a_graph_as_a_whole_is_one_kernel_of_a_family_that_all_ranks_share():
    program = Program().step(0, 0, 100)
    for graph in (40, 41, 40):
        launch = program.call(10 + program.correlation, name="cudaGraphLaunch")
        program.work("graphs", 20 + 10 * launch, 9, launch, 10, graph=graph)
    (step,), _ = made(program.batches())
    assert named(step, KERNEL) == ["CUDA graph (1)", "CUDA graph (2)", "CUDA graph (1)"]
    assert {family(name) for name in named(step, KERNEL)} == {"CUDA graph"}
    assert step.table.graph.tolist()[-3:] == [40, 41, 40]


def test_nodes_of_a_graph_hang_under_its_launch():
    program = Program().step(0, 0, 100)
    launch = program.call(10, name="cudaGraphLaunch")
    for node in (3, 4):
        program.work("kernels", 10 * node, 5, launch, 10, graph=7, graph_node=node)
    (step,), _ = made(program.batches())
    assert step.table.parent.tolist() == [-1, 0, 1, 1]
    assert step.table.graph.tolist() == [-1, 7, 7, 7]
    assert step.table.graph_node.tolist() == [-1, -1, 3, 4]


def test_a_graph_is_waited_for_until_it_has_as_many_nodes_as_the_last_time():
    maker = StepMaker(Settings())
    program = Program()
    for number in (0, 1):
        base = number * 1000
        program.step(number, base, base + 100)
        launch = program.call(base + 10, name="cudaGraphLaunch")
        for node in (1, 2, 3):
            at = base + 20 * node
            program.work("kernels", at, 5, launch, base + 10, graph=7, graph_node=node)
    nodes = [one for one in program.said if one.kind == "kernels"]
    calls = [one for one in program.said if one.kind == "apis"]
    later = T0 + 100 + 3 * 10**9
    steps = maker.add(batch(program.strings, [calls[0], *nodes[:3]], program.marks[:2], later))
    assert [len(one.table) for one in steps] == [5]  # nothing came for two seconds: all there is
    marks = [(later + m[0] - T0, *m[1:]) for m in program.marks[2:]]
    for one in (calls[1], *nodes[3:]):
        one.fields["start"] += later - T0
        one.fields["end"] += later - T0
    end = marks[1][0] + LINGER_NS
    assert maker.add(batch(program.strings, [calls[1], *nodes[3:5]], marks, end)) == []
    (step,) = maker.add(batch(program.strings, [nodes[5]], [], end + 1))
    assert len(step.table) == 5


# --- which step -------------------------------------------------------------------------------


def test_work_belongs_to_the_step_that_launched_it_whenever_it_runs():
    program = Program().step(1, 0, 100).step(2, 200, 300)
    program.kernel(50, 250, name="late on the GPU")
    program.kernel(150, 260, name="between the steps")
    program.kernel(210, 270, name="of the second")
    first, second = made(program.batches())[0]
    assert named(first, KERNEL) == ["late on the GPU", "between the steps"]
    assert named(second, KERNEL) == ["of the second"]


def test_what_no_step_launched_is_dropped_and_counted():
    program = Program()
    program.kernel(-50, 20, name="warm-up")
    program.step(0, 0, 100)
    program.kernel(LINGER_NS + 200, LINGER_NS + 210, name="long after")
    (step,), maker = made(program.batches())
    assert named(step) == ["worker step"]
    assert maker.counts.outside == 4


def test_work_without_a_call_takes_the_step_of_the_work_before_it_on_its_stream():
    program = Program().step(1, 0, 100).step(2, 200, 300)
    program.kernel(10, 20, stream=7)
    program.kernel(40, 240, stream=7, call=False, name="orphan")
    program.kernel(210, 260, stream=7)
    program.kernel(220, 230, stream=9, call=False, name="alone on its stream")
    first, second = made(program.batches())[0]
    assert named(first, KERNEL) == ["k", "orphan"]
    assert first.table.parent[named(first).index("orphan")] == 0
    assert named(second, KERNEL) == ["alone on its stream", "k"]


def test_micro_batches_on_two_threads_keep_their_own_work():
    program = Program()
    program.step(3, 0, 100, micro=0, thread=1).step(3, 10, 90, micro=1, thread=2)
    program.marks.sort(key=lambda mark: mark[0])
    program.kernel(50, 60, thread=1, name="zero")
    program.kernel(51, 70, thread=2, name="one", stream=8)
    program.kernel(95, 96, thread=2, name="after one's end", stream=8)
    program.kernel(52, 80, thread=3, name="of whoever began last", stream=9)
    zero, one = made(program.batches())[0]
    assert numbers([zero, one]) == [(3, 0), (3, 1)]
    assert named(zero, KERNEL) == ["zero"]
    assert sorted(named(one, KERNEL)) == ["after one's end", "of whoever began last", "one"]


def test_micro_batches_nested_on_one_thread_are_told_apart_by_the_innermost():
    program = Program()
    for at, micro, edge in [(0, 0, 0), (10, 1, 0), (20, 0, 1), (30, 1, 1)]:
        program.mark(at, 3, Edge(edge), micro=micro)
    for at in (5, 15, 25, 35):
        program.kernel(at, at + 1, 1, name=str(at))
    zero, one = made(program.batches())[0]
    assert named(zero, KERNEL) == ["5"]
    assert named(one, KERNEL) == ["15", "25", "35"]


def test_a_number_seen_again_is_another_step():
    program = Program().step(0, 0, 10).step(1, 20, 30).step(0, 40, 50)
    assert numbers(made(program.batches())[0]) == [(0, 0), (1, 0), (0, 0)]


def test_a_step_that_never_ends_is_given_up_when_many_newer_ones_began():
    program = Program().mark(0, 0, Edge.BEGIN)
    for number in range(1, 70):
        program.step(number, number * 10, number * 10 + 5)
    steps, _ = made(program.batches())
    assert len(steps) == 70
    assert steps[0].table.end_ns[0] - T0 == 650


def test_flags_of_both_marks_are_the_steps():
    program = Program().mark(0, 1, Edge.BEGIN, flags=StepFlag.DUMMY)
    program.mark(9, 1, Edge.END, flags=StepFlag.DECODE)
    (step,), _ = made(program.batches())
    assert step.flags == StepFlag.DUMMY | StepFlag.DECODE


# --- when it leaves ----------------------------------------------------------------------------


def test_a_step_leaves_when_the_next_has_begun_and_its_work_has_come():
    program = Program().step(0, 0, 100).mark(150, 1, Edge.BEGIN)
    program.kernel(10, 20)
    call, kernel = program.said
    maker = StepMaker(Settings())
    assert maker.add(batch(program.strings, [call], program.marks[:2], T0 + 120)) == []
    assert maker.add(batch(program.strings, [], program.marks[2:], T0 + 160)) == []
    (step,) = maker.add(batch(program.strings, [kernel], [], T0 + 170))
    assert named(step, KERNEL) == ["k"]
    assert maker.waiting == 0


def test_launches_whose_work_never_comes_do_not_hold_a_step_once_streams_went_on():
    program = Program().step(0, 0, 100).mark(150, 1, Edge.BEGIN)
    program.call(10)  # captured into a graph
    program.kernel(20, 30)
    maker = StepMaker(Settings())
    (step,) = maker.add(batch(program.strings, program.said, program.marks, T0 + 160))
    assert named(step, LAUNCH) == ["cudaLaunchKernel"] * 2


def test_work_that_runs_on_is_waited_for_two_seconds_and_then_counted():
    program = Program().step(0, 0, 100).mark(150, 1, Edge.BEGIN)
    program.kernel(10, 20)
    program.kernel(30, 40, 10**10)
    call, kernel, long_call, long_kernel = program.said
    maker = StepMaker(Settings())
    said = [call, kernel, long_call]
    assert maker.add(batch(program.strings, said, program.marks, T0 + 160)) == []
    (step,) = maker.add(batch(program.strings, [], [], T0 + 100 + 2 * 10**9))
    assert named(step) == ["worker step", *["cudaLaunchKernel"] * 2, "k"]
    assert maker.counts.unfinished == 1
    maker.add(batch(program.strings, [long_kernel], [], T0 + 11 * 10**9))
    maker.flush()
    assert maker.counts.late == 1


def test_what_was_lost_while_a_step_ran_stands_on_it():
    program = Program().step(0, 0, 100).step(1, 200, 300).step(2, 400, 500)
    maker = StepMaker(Settings())
    maker.add(batch([""], [], program.marks[:2], T0 + 150))
    steps = maker.add(
        batch([""], [], program.marks[2:4], T0 + 350, loss=Loss(records=3, malformed=1))
    )
    steps += maker.add(
        batch([""], [], program.marks[4:], T0 + 10**9, loss=Loss(records=3, malformed=1))
    )
    assert [one.lost for one in steps] == [4, 4, 0]
    assert steps[0].table.attributes[0][semconv.DROPPED_COUNT] == 4
    assert digest_of(steps[0].table).dropped == 4


def test_more_than_may_wait_leaves_as_it_is(monkeypatch):
    monkeypatch.setattr("kat_otel.instrumentation.steps.tree.MAX_WAITING", 10)
    program = Program().mark(0, 0, Edge.BEGIN)
    for at in range(1, 10):
        program.kernel(at, at)
    program.call(10)
    maker = StepMaker(Settings())
    (step,) = maker.add(batch(program.strings, program.said, program.marks, T0 + 100))
    assert (len(step.table), step.lost) == (20, 1)
    assert maker.waiting == 0
    stuck = maker.add(batch(program.strings, program.said, [], T0))
    assert (stuck, maker.waiting, maker.counts.unfit) == ([], 0, 19)


# --- what the worker says -----------------------------------------------------------------------


def test_who_it_is_and_which_requests_it_works_for_is_heard(caplog):
    worker = Worker(Resource(rank=3, instance="i"), nonce=7, group_size=8)
    links = Links(4, 1, (("ab" * 16, "cd" * 8),))
    texts = [worker.encode(), links.encode(), b"no json", json.dumps({"worker": 5}).encode()]
    program = Program().step(4, 0, 10, micro=1).step(5, 20, 30)
    maker = StepMaker(Settings())
    with caplog.at_level(logging.WARNING):
        steps = maker.add(batch([""], [], program.marks, T0 + 10**9, texts=texts))
    assert maker.worker == worker
    assert [one.links for one in steps] == [links.spans, ()]
    assert maker.counts.malformed == 2
    assert len(caplog.records) == 1


# --- steps by NVTX ranges -------------------------------------------------------------------------


def test_ranges_that_match_are_steps_where_no_engine_marks():
    program = Program().marker(0, 100, "step 8").marker(200, 100, "step 9").marker(210, 5, "other")
    program.kernel(10, 20)
    program.kernel(150, 160, name="between")
    program.kernel(220, 230, name="second")
    steps, _ = made(program.batches(), Settings(step_range=r"step (\d+)"))
    assert numbers(steps) == [(8, 0), (9, 0)]
    assert [named(one, KERNEL) for one in steps] == [["k", "between"], ["second"]]
    assert numbers(made(program.batches(), Settings(step_range="step"))[0]) == [(0, 0), (1, 0)]


def test_a_gpu_that_works_without_any_step_is_said_once(caplog):
    maker = StepMaker(Settings())
    program = Program()
    program.kernel(1, 2)
    with caplog.at_level(logging.WARNING):
        for second in (1, 30, 62, 63, 64):
            said = [one for one in program.said if second == 1]
            maker.add(batch(program.strings, said, [], T0 + second * 10**9))
    assert [record.message for record in caplog.records if "KAT_STEP_RANGE" in record.message]
    assert len(caplog.records) == 1


# --- however it is cut ----------------------------------------------------------------------------


@given(programs(), st.integers(1, 6), st.integers(0, 99))
@examples(max_examples=100, deadline=None)
def test_the_steps_are_the_same_however_the_records_are_cut_and_ordered(program, cuts, seed):
    whole, _ = made(program.batches())
    parts, maker = made(program.batches(cuts, seed))
    assert numbers(parts) == numbers(whole)
    for one, other in zip(whole, parts, strict=True):
        assert spelled(other) == spelled(one)
        assert encode(digest_of(other.table)) == encode(digest_of(one.table))
    rows = sum(len(one.table) - 1 for one in parts)
    counts = asdict(maker.counts)
    gone = sum(counts[name] for name in ("outside", "late", "left_out", "unfit"))
    assert rows + gone == len(program.said)
    assert maker.waiting == 0
    for one in parts:
        assert one.table.parent[0] == -1
        assert (one.table.parent[1:] >= 0).all()
        assert np.all(one.table.parent < len(one.table))


@pytest.mark.parametrize("seed", range(20))
def test_a_new_table_of_texts_changes_nothing(monkeypatch, seed):
    program = Program().step(0, 0, 1000).step(1, 1010, 2000)
    for at in range(10, 1900, 100):
        program.kernel(at, at + 10, name=f"k{at % 7}", grid=(at, 1, 1))
    program.marker(5, 900, "layer")
    whole, _ = made(program.batches())
    monkeypatch.setattr("kat_otel.instrumentation.steps.tree.MAX_TEXTS", 0)
    parts, _ = made(program.batches(5, seed))
    assert [spelled(one) for one in parts] == [spelled(one) for one in whole]


@pytest.mark.parametrize("seed", range(3))
def test_late_flush_of_an_idle_server_closes_its_last_step(seed):
    program = Program().step(0, 0, 100)
    program.kernel(10, 20)
    maker = StepMaker(Settings())
    steps = [s for one in program.batches(2, seed, last=LINGER_NS + 200) for s in maker.add(one)]
    assert numbers(steps) == [(0, 0)]
