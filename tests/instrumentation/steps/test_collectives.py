"""NCCL's ranges say which call of which communicator a kernel is, or nobody does."""

from __future__ import annotations

from kat_otel import semconv
from kat_otel.spans import SpanKind
from tests.instrumentation.programs import Program, made

REDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
GATHER = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
PEERS = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)"


def told(step) -> list[tuple[str, int, int]]:
    """Communicator, number and bytes of each collective, in order of their starts."""
    t = step.table
    rows = (t.kind == SpanKind.COLLECTIVE).nonzero()[0]
    return [(t.text(t.group[i]), t.sequence[i].item(), t.bytes[i].item()) for i in rows]


def call(program: Program, at: int, name: str, group: int, took: int = 10, **more) -> None:
    program.marker(at, took, name, domain="NCCL", group=group, **{"bytes": 64, **more})


def test_a_call_of_its_own_holds_the_launch_of_its_kernel():
    program = Program().step(0, 0, 100).step(1, 200, 300)
    for at, group in [(10, 0xA), (30, 0xB), (210, 0xA)]:
        call(program, at, "ncclAllReduce", group, bytes=at)
        program.kernel(at + 5, at + 12, name=REDUCE)
    first, second = made(program.batches())[0]
    assert told(first) == [(f"{0xA:016x}", 0, 10), (f"{0xB:016x}", 0, 30)]
    assert told(second) == [(f"{0xA:016x}", 1, 210)]


def test_calls_of_a_group_are_launched_after_the_last_of_them_in_order():
    program = Program().step(0, 0, 100)
    call(program, 10, "ncclAllReduce", 0xA, took=2)
    call(program, 13, "ncclAllGather", 0xB, took=2)
    program.marker(16, 20, "ncclGroupEnd", domain="NCCL")
    program.kernel(20, 40, name=REDUCE)
    program.kernel(25, 60, name=GATHER)
    (step,), _ = made(program.batches())
    assert told(step) == [(f"{0xA:016x}", 0, 64), (f"{0xB:016x}", 0, 64)]


def test_calls_that_became_one_kernel_leave_it_their_communicator_alone():
    program = Program().step(0, 0, 100)
    for at in (10, 13):
        call(program, at, "ncclAllReduce", 0xA, took=2)
    program.kernel(20, 40, name=REDUCE)
    call(program, 50, "ncclAllReduce", 0xA)
    program.kernel(55, 70, name=REDUCE)
    (step,), _ = made(program.batches())
    assert told(step) == [(f"{0xA:016x}", -1, -1), (f"{0xA:016x}", 2, 64)]


def test_calls_of_several_communicators_that_became_one_kernel_leave_it_nothing():
    program = Program().step(0, 0, 100)
    for at, group in [(10, 0xA), (13, 0xB)]:
        call(program, at, "ncclAllReduce", group, took=2)
    program.kernel(20, 40, name=REDUCE)
    (step,), _ = made(program.batches())
    assert told(step) == [("", -1, -1)]


def test_a_kernel_of_another_operation_is_not_the_calls():
    program = Program().step(0, 0, 100)
    call(program, 10, "ncclAllReduce", 0xA)
    program.kernel(15, 30, name=GATHER)
    (step,), _ = made(program.batches())
    assert told(step) == [("", -1, -1)]


def test_a_group_of_another_thread_or_step_is_none_of_its_business():
    program = Program().step(0, 0, 100).step(1, 200, 300)
    call(program, 10, "ncclAllReduce", 0xA, took=2, thread=2)
    call(program, 90, "ncclAllReduce", 0xA, took=2)
    program.kernel(20, 40, name=REDUCE)
    program.kernel(210, 240, name=REDUCE)
    first, second = made(program.batches())[0]
    assert told(first) == told(second) == [("", -1, -1)]


def test_sends_tell_their_peer_and_are_not_counted():
    program = Program().step(0, 0, 100)
    call(program, 10, "ncclSend", 0xA, peer=3)
    program.kernel(15, 30, name=PEERS)
    call(program, 50, "ncclAllReduce", 0xA)
    program.kernel(55, 70, name=REDUCE)
    (step,), _ = made(program.batches())
    assert told(step) == [(f"{0xA:016x}", -1, 64), (f"{0xA:016x}", 0, 64)]
    row = step.table.kind.tolist().index(SpanKind.COLLECTIVE)
    assert step.table.attributes[row] == {semconv.PEER: 3}


def test_calls_outside_steps_count_too():
    program = Program()
    call(program, -50, "ncclAllReduce", 0xA)
    program.step(0, 0, 100)
    call(program, 10, "ncclAllReduce", 0xA)
    program.kernel(15, 30, name=REDUCE)
    (step,), _ = made(program.batches(3, 1))
    assert told(step) == [(f"{0xA:016x}", 1, 64)]


def test_without_calls_a_collective_is_one_all_the_same():
    program = Program().step(0, 0, 100)
    launch = program.call(10, name="cudaGraphLaunch")
    program.work("kernels", 20, 5, launch, 10, name=REDUCE, graph=1, graph_node=2)
    (step,), _ = made(program.batches())
    assert told(step) == [("", -1, -1)]
