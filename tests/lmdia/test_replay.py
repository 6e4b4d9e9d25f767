"""What a replayed step must do, on programs small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kat_otel.kernels import Semantics
from kat_otel.lmdia.program import ALL_STREAMS, Operation, Program
from kat_otel.lmdia.replay import simulate
from kat_otel.spans import Resource, SpanKind

KERNEL = Operation("kernel", SpanKind.KERNEL, stream=7, call="cudaLaunchKernel")
ALL_REDUCE = Operation(
    "all_reduce",
    SpanKind.COLLECTIVE,
    stream=7,
    call="cudaLaunchKernel",
    semantics=Semantics.BARRIER,
)


def program(
    *operations: Operation, ranks: int = 2, present: list[list[bool]] | None = None, **times: object
) -> Program:
    """A program with gap 1, call 1, latency 2, dispatch 0 and own 10 unless told otherwise."""
    shape = (ranks, len(operations))
    defaults = {"gap": 1.0, "call": 1.0, "latency": 2.0, "dispatch": 0.0, "own": 10.0} | times
    arrays = {
        name: np.broadcast_to(np.array(value, np.float64), shape).copy()
        for name, value in defaults.items()
    }
    return Program(
        operations=operations,
        host_operations=(),
        resources=tuple(Resource(rank=rank, world_size=ranks) for rank in range(ranks)),
        present=np.ones(shape, np.bool_) if present is None else np.array(present),
        start=np.zeros(ranks),
        **arrays,  # pyright: ignore[reportArgumentType]
    )


def test_a_kernel_starts_a_latency_after_its_launch_on_an_idle_stream() -> None:
    times = simulate(program(KERNEL))
    assert times.call_start[0, 0] == 1
    assert times.call_end[0, 0] == 2
    assert times.gpu_start[0, 0] == 3
    assert times.gpu_end[0, 0] == 13


def test_kernels_of_one_stream_run_one_after_the_other() -> None:
    times = simulate(program(KERNEL, KERNEL, dispatch=0.5))
    assert times.call_start[0, 1] == 3  # the host does not wait
    assert times.gpu_start[0, 1] == 13.5


def test_kernels_of_two_streams_overlap_unless_an_event_orders_them() -> None:
    other = Operation("other", SpanKind.KERNEL, stream=8, call="cudaLaunchKernel")
    waits = Operation("other", SpanKind.KERNEL, stream=8, call="cudaLaunchKernel", after=(0,))
    assert simulate(program(KERNEL, other)).gpu_start[0, 1] == 5
    assert simulate(program(KERNEL, waits)).gpu_start[0, 1] == 13


def test_a_collective_ends_everywhere_a_transfer_after_the_last_arrival() -> None:
    times = simulate(program(KERNEL, ALL_REDUCE, own=[[10, 5], [40, 5]]))
    assert times.gpu_start[:, 1].tolist() == [13, 43]  # each arrives by itself
    assert times.gpu_end[:, 1].tolist() == [48, 48]  # the early one waits inside its kernel


def test_ranks_without_the_collective_do_not_take_part_in_it() -> None:
    alone = program(
        KERNEL, ALL_REDUCE, own=[[10, 5], [40, 5]], present=[[True, True], [True, False]]
    )
    times = simulate(alone)
    assert times.gpu_end[0, 1] == 18
    assert np.isnan(times.gpu_start[1, 1])


@pytest.mark.parametrize("stream", [7, ALL_STREAMS])
def test_a_synchronising_call_returns_when_the_gpu_is_done(stream: int) -> None:
    sync = Operation("cudaStreamSynchronize", SpanKind.SYNC, stream, "cudaStreamSynchronize")
    times = simulate(program(KERNEL, sync, KERNEL, own=[[10, 3, 10]] * 2))
    assert times.call_end[0, 1] == 16
    assert times.call_start[0, 2] == 17


def test_a_synchronising_call_does_not_wait_for_another_stream() -> None:
    sync = Operation("cudaStreamSynchronize", SpanKind.SYNC, 8, "cudaStreamSynchronize")
    assert simulate(program(KERNEL, sync)).call_end[0, 1] == 4


def test_graph_nodes_start_from_their_graph_launch() -> None:
    launch = Operation("cudaGraphLaunch", SpanKind.LAUNCH, call="cudaGraphLaunch", graph=1)
    node = Operation("node", SpanKind.KERNEL, stream=7, graph_launch=0, graph=1, graph_node=5)
    times = simulate(program(launch, node, node, gap=[[1, 0, 0]] * 2, call=[[1, 0, 0]] * 2))
    assert times.gpu_start[0, 1:].tolist() == [3, 13]


def test_lateness_of_one_rank_spreads_to_the_others_only_through_the_collective() -> None:
    operations = (KERNEL, ALL_REDUCE, KERNEL)
    healthy = program(*operations, ranks=4)
    hold = np.array([[0], [100], [0], [0]]) * np.array([1, 0, 0])
    late = healthy.with_times(gap=healthy.gap + hold)
    before, after = simulate(healthy), simulate(late)
    assert (after.gpu_start[[0, 2, 3], :2] == before.gpu_start[[0, 2, 3], :2]).all()
    assert (after.gpu_start[:, 2] == before.gpu_start[:, 2] + 100).all()
    assert after.step_ns == before.step_ns + 100


def test_arrays_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Program.start has shape \(3,\), expected \(2,\)"):
        program(KERNEL).with_times(start=np.zeros(3))
