"""Where the time of a rank's step goes."""

import numpy as np
import pytest

from kat_otel.processor.step_parts import step_parts
from kat_otel.spans import Resource, SpanKind, SpanTable, SpanTableBuilder

REDUCE, SEND = "ncclDevKernel_AllReduce_Sum", "ncclDevKernel_SendRecv"


def step(ranks: dict[int, list[tuple[str, int, int]]], length: int = 100) -> SpanTable:
    """Ranks with a worker step of 0 to ``length`` and kernels of (name, start, end)."""
    builder = SpanTableBuilder()
    for rank, kernels in ranks.items():
        spans = [("worker step", 0, length), *kernels]
        names, starts, ends = zip(*spans, strict=True)
        builder.append(
            len(spans),
            start_ns=np.array(starts),
            duration_ns=np.array(ends) - np.array(starts),
            name=np.array([builder.strings.add(name) for name in names]),
            kind=np.array([SpanKind.WORKER_STEP] + [SpanKind.KERNEL] * len(kernels)),
            resource=builder.add_resource(Resource(rank=rank)),
        )
    return builder.build()


def test_who_comes_first_waits_and_who_comes_last_does_not():
    found = step_parts(
        step({0: [("gemm", 0, 20), (REDUCE, 20, 90)], 1: [("gemm", 0, 60), (REDUCE, 60, 90)]})
    )
    assert found == {
        0: {"compute": 20, "wait": 40, "transfer": 30, "host": 10},
        1: {"compute": 60, "wait": 0, "transfer": 30, "host": 10},
    }


def test_waiting_behind_work_of_another_stream_costs_nothing():
    found = step_parts(
        step({0: [("gemm", 0, 50), (REDUCE, 20, 90)], 1: [("gemm", 0, 60), (REDUCE, 60, 90)]})
    )
    assert found[0] == {"compute": 50, "wait": 10, "transfer": 30, "host": 10}


def test_a_gpu_without_work_is_the_hosts_time():
    found = step_parts(step({0: [("gemm", 30, 40), ("gemm", 80, 90)]}))
    assert found == {0: {"compute": 20, "wait": 0, "transfer": 0, "host": 80}}


def test_a_send_has_no_barrier_and_is_transfer():
    found = step_parts(step({0: [(SEND, 0, 40)], 1: [(SEND, 30, 40)]}))
    assert [found[rank]["wait"] for rank in (0, 1)] == [0, 0]
    assert [found[rank]["transfer"] for rank in (0, 1)] == [40, 10]


def test_what_runs_beyond_the_step_is_not_counted():
    assert step_parts(step({0: [("gemm", -50, 150)]}))[0]["compute"] == 100


@pytest.mark.parametrize(
    "table",
    [
        step({0: [(REDUCE, 0, 10), (REDUCE, 20, 30)], 1: [(REDUCE, 0, 10)]}),
        step({0: [], 1: []}),
        SpanTable.empty(),
    ],
    ids=["unequal counts", "a digest", "nothing"],
)
def test_where_waiting_is_not_known_nothing_is_told(table):
    assert step_parts(table) == {}


def test_the_parts_of_a_real_step_add_up_to_it(dlrm):
    found = step_parts(dlrm)
    steps = dlrm.kind == SpanKind.WORKER_STEP
    took = dict(zip(dlrm.rank[steps].tolist(), dlrm.duration_ns[steps].tolist(), strict=True))
    assert {rank: sum(parts.values()) for rank, parts in found.items()} == took
    assert all(part >= 0 for parts in found.values() for part in parts.values())
    waits = {rank: parts["wait"] for rank, parts in found.items()}
    assert {4, 5, 7} == set(sorted(waits, key=waits.get)[:3])  # whom the others wait for
