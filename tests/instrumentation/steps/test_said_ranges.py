"""What a hook says that the host did is in the tree of its step, whenever it began."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kat_otel import semconv
from kat_otel.instrumentation.capture.records import Batch
from kat_otel.instrumentation.identity.worker import Worker
from kat_otel.instrumentation.sending.digests import Digests
from kat_otel.instrumentation.sending.ids import identified, with_digest
from kat_otel.instrumentation.sending.pack import Packer, request
from kat_otel.instrumentation.settings import Settings
from kat_otel.instrumentation.steps.host_ranges import HostRange, HostRanges
from kat_otel.instrumentation.steps.said_ranges import MOST_SAID
from kat_otel.instrumentation.steps.step import Step
from kat_otel.instrumentation.steps.tree import StepMaker
from kat_otel.otlp import decode_traces
from kat_otel.spans import NO_PARENT, Resource, SpanKind
from kat_otel.trees import WORKER_STEP_NAME
from tests.instrumentation.programs import T0, Program, made, named

REMOTE = {semconv.KV_REMOTE_ENGINE_ID: "prefill-3", semconv.KV_REQUEST_ID: "r17"}


def said(step: int, *ranges: HostRange, micro: int = 0, dropped: int = 0) -> bytes:
    return HostRanges(step, micro, ranges, dropped).encode()


def transfer(start: int = -500, end: int = 40, thread: int = 1, name="kv transfer") -> HostRange:
    return HostRange(name, T0 + start, T0 + end, thread, REMOTE)


def steps_of(program: Program, *texts: bytes) -> tuple[list[Step], StepMaker]:
    (batch,) = program.batches()
    return made([replace(batch, texts=texts)])


def served(last: int = 0) -> Program:
    """Steps of 100 ns, each a range with a launch in it."""
    program = Program()
    for number in range(last + 1):
        at = 1_000 * number
        program.step(number, at, at + 100).marker(at + 1, 80, "forward")
        program.kernel(at + 10, at + 20)
    return program


def row_of(step: Step, name: str) -> int:
    return named(step).index(name)


def parent_of(step: Step, name: str) -> str:
    return step.table.name_of(step.table.parent[row_of(step, name)])


def test_a_transfer_is_in_its_step_with_its_time_and_the_other_engine() -> None:
    (before, step), _ = steps_of(served(1), said(1, transfer(-500, 1_040)))
    row = row_of(step, "kv transfer")
    table = step.table
    assert table.kind[row] == SpanKind.HOST_OP
    assert (table.start_ns[row], table.duration_ns[row]) == (T0 - 500, 1_540)
    assert table.attributes[row] == REMOTE
    assert table.parent[row] == 0
    assert table.step[row] == 1
    assert "kv transfer" not in named(before)


def test_what_was_seen_stands_in_no_transfer() -> None:
    (step,), _ = steps_of(served(), said(0, transfer()))
    assert parent_of(step, "forward") == WORKER_STEP_NAME
    assert parent_of(step, "cudaLaunchKernel") == "forward"


def test_it_stands_in_the_range_that_held_it_and_in_another_that_was_said() -> None:
    outer = transfer(5, 60, name="kv wait_for_save")
    inner = transfer(10, 20, name="kv inner")
    other = transfer(10, 20, thread=9, name="kv elsewhere")
    (step,), _ = steps_of(served(), said(0, inner, outer, other))
    assert parent_of(step, "kv inner") == "kv wait_for_save"
    assert parent_of(step, "kv wait_for_save") == "forward"
    assert parent_of(step, "kv elsewhere") == WORKER_STEP_NAME
    assert step.table.parent[0] == NO_PARENT


def test_it_survives_packing() -> None:
    (step,), _ = steps_of(served(), said(0, transfer()))
    worker = Worker(Resource(rank=3, world_size=4, instance="i"), 7, 4)
    whole = identified(with_digest(step, worker, Digests(), named=True), 3, 7, 0, 0)
    (spans,) = Packer().pack(whole)
    table = decode_traces(b"".join(request(worker.resource, spans)))
    row = [table.name_of(i) for i in range(len(table))].index("kv transfer")
    assert (table.start_ns[row], table.duration_ns[row]) == (T0 - 500, 540)
    assert table.attributes[row].items() >= REMOTE.items()
    assert table.parent_id[row] == whole.span_id[0]
    assert len(table) == len(whole)


def test_of_a_step_that_has_left_it_is_late_and_counted() -> None:
    early, late = served(2).batches()[0], Batch(texts=(said(0, transfer()),), until_ns=T0 + 10**11)
    steps, maker = made([early, late])
    assert [one.step for one in steps] == [0, 1, 2]
    assert not any("kv transfer" in named(one) for one in steps)
    assert maker.counts.late == 1
    assert maker.waiting == 0


def test_before_any_step_it_is_outside() -> None:
    (step,), maker = steps_of(served(), said(5, transfer()))
    assert "kv transfer" not in named(step)
    assert maker.counts.outside + maker.counts.late == 1


def test_what_makes_no_sense_is_counted_and_the_step_leaves() -> None:
    bad = (b'{"ranges": {"step": 1e999, "micro": 0, "dropped": 0, "ranges": []}}', b'{"ranges": 1}')
    (step,), maker = steps_of(served(), *bad, b"[" * 10_000, said(0, transfer()))
    assert maker.counts.malformed == 3
    assert "kv transfer" in named(step)


def test_what_finds_no_room_is_counted() -> None:
    maker = StepMaker(Settings())
    many = said(3, *[transfer()] * 256)
    for _ in range(MOST_SAID // 256 + 1):
        maker.add(Batch(texts=(many,)))
    assert maker.waiting == MOST_SAID
    assert maker.counts.unsaid == 256
    maker.add(Batch(texts=(said(3, dropped=9),)))
    assert maker.counts.unsaid == 256 + 9


def test_room_is_free_again_when_steps_leave() -> None:
    maker = StepMaker(Settings())
    strings = Program().strings
    for number in range(3 * MOST_SAID // 256):
        program = Program(strings=strings).step(number, 1_000 * number, 1_000 * number + 100)
        (batch,) = program.batches(last=1_000 * number + 999)
        maker.add(replace(batch, texts=(said(number, *[transfer()] * 256),)))
    maker.flush()
    assert maker.counts.unsaid == 0
    assert np.array(maker.waiting) == 0
