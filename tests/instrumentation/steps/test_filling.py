"""The native library fills in the columns of steps as NumPy does, value for value."""

from __future__ import annotations

from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from kat_otel.instrumentation.capture.library import load
from kat_otel.instrumentation.steps import forms
from kat_otel.instrumentation.steps.filling import by_numpy, natively
from kat_otel.instrumentation.steps.step import Step
from kat_otel.spans import COLUMNS, UNKNOWN
from tests.instrumentation import needs
from tests.instrumentation.programs import Program, made, programs

needs.compiler()

NATIVE = partial(natively, load())


def alike(program: Program, cuts: int = 1, seed: int = 0) -> list[Step]:
    """The steps by the native library, after a look at those by NumPy."""
    ours, _ = made(program.batches(cuts, seed), fill=NATIVE)
    theirs, _ = made(program.batches(cuts, seed), fill=by_numpy)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.step, one.size) == (other.step, other.size)
        assert one.table.attributes == other.table.attributes
        for name, column in COLUMNS.items():
            mine, its = getattr(one.table, name), getattr(other.table, name)
            assert mine.dtype == its.dtype == column.dtype
            assert mine.tolist() == its.tolist(), name
    return ours


@given(programs(), st.booleans(), st.booleans(), st.integers(1, 4), st.integers(0, 99))
@examples(max_examples=200, deadline=None)
def test_whatever_the_program(program, waits, nodes, cuts, seed) -> None:
    calls = [one for one in program.said if one.kind == "apis"]
    for one in calls[::2] if waits else ():
        at = one.launched - 1_700_000_000_000_000_000
        program.other("syncs", at, 3, correlation=one.fields["correlation"], stream=-1, kind=3)
    for one in calls[::3] if nodes else ():
        at = one.launched - 1_700_000_000_000_000_000
        for node in (1, 2):
            program.work(
                "kernels", at + node, 1, one.fields["correlation"], at, graph=9, graph_node=node
            )
    alike(program, cuts, seed)


def test_steps_that_never_ended_last_as_long_as_all_they_did() -> None:
    program = Program().step(0, 0, 100).mark(110, 1, 0)
    program.kernel(10, 20)
    program.kernel(120, 300, 50)
    program.call(400, 70_000, "cudaMalloc")
    first, second = alike(program)
    assert first.table.duration_ns[0] == 100
    assert second.table.duration_ns[0] == 70_290


def test_sends_and_receives_say_their_peers() -> None:
    program = Program().step(0, 0, 1_000)
    name = "ncclDevKernel_SendRecv(x)"
    for at, peer in ((10, 3), (110, 5)):
        program.marker(at, 50, "ncclSend", domain="NCCL", group=7, bytes=64, peer=peer)
        program.kernel(at + 5, at + 60, name=name)
    (step,) = alike(program)
    said = [one for row, one in sorted(step.table.attributes.items()) if row]
    assert [list(one.values()) for one in said] == [[3], [5]]
    assert step.table.bytes.tolist()[-2:] == [64, 64]


def test_columns_that_nobody_fills_in_hold_one_value() -> None:
    program = Program().step(4, 0, 100)
    program.kernel(10, 20)
    (step,) = alike(program)
    for name in ("bytes", "graph", "group", "sequence", "step", "resource"):
        assert getattr(step.table, name).strides == (0,), name
    assert step.table.bytes.tolist() == [UNKNOWN] * 3
    assert step.table.step.tolist() == [4, 4, 4]


def test_a_step_keeps_no_other_in_memory() -> None:
    program = Program().step(0, 0, 100).step(1, 110, 200)
    program.kernel(10, 20)
    program.kernel(120, 130)
    first, second = alike(program)
    assert first.table.start_ns.base is not second.table.start_ns.base
    assert first.table.start_ns.base.nbytes == first.size


def test_records_are_laid_out_as_the_library_reads_them() -> None:
    sizes = {"WORK": 72, "CALL": 40, "RANGE": 64, "WAIT": 32}
    assert {name: getattr(forms, name).itemsize for name in sizes} == sizes
    assert np.dtype(forms.WORK).fields["kind"][1] == 68
