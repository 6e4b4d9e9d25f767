"""What CUPTI emits is what a Batch holds, whatever CUPTI's version; what is lost is counted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kat_otel.errors import CaptureError
from kat_otel.instrumentation.capture.cupti import Capture
from kat_otel.instrumentation.capture.records import Edge, StepFlag
from kat_otel.instrumentation.capture.region import RegionSource
from kat_otel.instrumentation.settings import Settings
from tests.instrumentation.capturing import rows, running

REPOSITORY = Path(__file__).resolve().parents[3]
VERSIONS = [18, 20, 22, 27, 28, 130000, 130100, 130200, 130400, 130500, 140000]
NAMES = ["", "gemm", "void attention<float, 128>(Params)", "ncclDevKernel_AllReduce", "x" * 3_000]
CALLS = ["cudaLaunchKernel", "cudaMemcpyAsync", "cudaGetDeviceCount", "cuLaunchKernelEx"]


def past() -> int:
    """A start so long ago that all that is replayed has ended."""
    return time.time_ns() - 10**10


def everything(rng: np.random.Generator) -> NDArray[Any]:
    """Rows of all kinds with random fields."""

    def numbers(count: int, most: int = 2**31 - 1) -> NDArray[Any]:
        return rng.integers(0, most, count)

    def gpu(count: int) -> dict[str, Any]:
        return {
            "correlation": numbers(count),
            "graph_node": numbers(count, 2**60),
            "graph": numbers(count),
            "device": numbers(count, 8),
            "stream": numbers(count),
        }

    made = np.concatenate(
        [
            rows(
                "kernel",
                700,
                name=rng.integers(0, len(NAMES), 700),
                grid=numbers(2_100).reshape(-1, 3),
                block=numbers(2_100).reshape(-1, 3),
                **gpu(700),
            ),
            rows("copy", 90, extra=numbers(90, 11), bytes=numbers(90, 2**50), **gpu(90)),
            rows("peer", 30, extra=10, bytes=numbers(30, 2**50), **gpu(30)),
            rows("set", 40, bytes=numbers(40, 2**50), **gpu(40)),
            rows("graph", 20, **{**gpu(20), "graph_node": 0}),
            rows("runtime", 500, name=len(NAMES) + rng.integers(0, 3, 500), thread=numbers(500)),
            rows("driver", 60, name=len(NAMES) + 3, thread=numbers(60), correlation=numbers(60)),
            rows("sync", 50, extra=rng.integers(1, 5, 50), stream=-1, correlation=numbers(50)),
            rows("external", 80, id=numbers(80, 2**62), extra=3, correlation=numbers(80)),
            rows("overhead", 10, extra=numbers(10)),
        ]
    )
    return made[rng.permutation(len(made))]


def ordered(table: NDArray[Any]) -> NDArray[Any]:
    return np.sort(table, order=[name for name in table.dtype.names if table[name].ndim == 1])


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_emitted_is_what_is_read(version: int) -> None:
    sent = everything(np.random.default_rng(version))
    texts = [*NAMES, *CALLS]
    start = past()
    with running(version) as run:
        run.standin.replay(sent, texts, start)
        batch = run.all()
    expected = {
        "kernels": ("kernel", "start end correlation graph_node graph device stream grid block"),
        "copies": ("copy peer", "start end correlation graph_node graph device stream bytes"),
        "sets": ("set", "start end correlation graph_node graph device stream bytes"),
        "graphs": ("graph", "start end correlation graph_node graph device stream"),
        "syncs": ("sync", "start end correlation stream"),
        "overheads": ("overhead", "start end"),
        "externals": ("external", "correlation id"),
    }
    for column, (kinds, fields) in expected.items():
        read = getattr(batch, column)
        of_kind = np.concatenate([sent[sent["kind"] == rows(k, 1)["kind"]] for k in kinds.split()])
        assert len(read) == len(of_kind), column
        same = np.zeros(len(of_kind), read.dtype)
        for field in fields.split():
            since = start if field in {"start", "end"} else 0
            same[field] = of_kind[field] + since
        if column == "kernels":
            same["name"] = [batch.strings.index(texts[name]) for name in of_kind["name"]]
        elif column not in {"sets", "graphs"}:
            same["kind"] = of_kind["extra"]
        assert np.array_equal(ordered(read), ordered(same)), column
    calls = sorted(batch.strings[name] for name in batch.apis["name"])
    wanted = [texts[name] for name in sent[np.isin(sent["kind"], (4, 5))]["name"]]
    assert calls == sorted(name for name in wanted if name != "cudaGetDeviceCount")
    assert (
        batch.apis["driver"] == np.isin(batch.apis["name"], batch.strings.index(CALLS[3]))
    ).all()
    threads = sent[(sent["kind"] == 4)]["thread"]
    assert sorted(batch.apis["thread"][batch.apis["driver"]]) == sorted(threads)
    assert batch.loss == type(batch.loss)()


def test_records_that_grew_since_are_walked_as_cupti_says(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with running(130500) as run:
        run.standin.grow(16)
        sent = everything(np.random.default_rng(1))
        for _ in range(2):
            run.standin.replay(sent, [*NAMES, *CALLS], past())
            run.standin.wait()
            run.capture.flush()
        batch = run.all()
    assert len(batch.kernels) == 1_400
    assert sorted(batch.kernels["correlation"])[::2] == sorted(
        sent["correlation"][sent["kind"] == 10]
    )
    assert batch.loss.malformed == 0
    assert capfd.readouterr().err.count("walked by cuptiActivityGetNextRecord") == 1


def test_a_buffer_that_makes_no_sense_is_given_up_and_counted() -> None:
    with running() as run:
        run.standin.replay(rows("kernel", 10, name=1), NAMES, past())
        run.standin.wait()
        run.capture.flush()
        run.standin.corrupt(1)
        run.standin.replay(rows("kernel", 10, name=1), NAMES, past())
        run.standin.wait()
        run.capture.flush()
        run.standin.replay(rows("kernel", 5, name=1), NAMES, past())
        batch = run.all()
    assert batch.loss.malformed == 1
    assert len(batch.kernels) == 15


def test_kernels_without_times_are_counted_as_lost() -> None:
    with running() as run:
        run.standin.replay(rows("kernel", 10, start=0, end=0), NAMES, past())
        batch = run.all()
    assert len(batch.kernels) == 0
    assert batch.loss.records == 10


def test_a_name_has_one_id_wherever_it_stands() -> None:
    with running() as run:
        for _ in range(3):
            run.standin.replay(rows("kernel", 10, name=np.arange(10) % 5), NAMES, past())
        batch = run.all()
    assert len(set(batch.strings)) == len(batch.strings)
    assert set(NAMES) <= set(batch.strings)
    assert len(np.unique(batch.kernels["name"])) == 5


def test_memory_that_holds_another_name_now_is_another_name() -> None:
    with running() as run:
        run.standin.reuse()
        for name in ("first_kernel", "other_kernel"):
            run.standin.replay(rows("kernel", 10), [name], past())
            run.standin.wait()
            run.capture.flush()
        batch = run.all()
    assert [batch.strings[name] for name in batch.kernels["name"][[0, 10]]] == [
        "first_kernel",
        "other_kernel",
    ]


def test_names_beyond_their_room_are_said_to_be() -> None:
    many = [f"kernel_{i:06}_" + "x" * 4_000 for i in range(2_500)]
    with running() as run:
        run.standin.replay(rows("kernel", 2_500, name=np.arange(2_500)), many, past())
        batch = run.all()
        assert run.source.names_lost > 0
    full = batch.strings.index("(names full)")
    assert 0 < np.count_nonzero(batch.kernels["name"] == full) < 1_000
    named = batch.kernels["name"] != full
    assert all(
        many[i] == batch.strings[name]
        for i, name in zip(np.flatnonzero(named), batch.kernels["name"][named], strict=True)
    )


def test_the_clock_of_another_tool_is_corrected() -> None:
    start = past()
    with running() as run:
        run.standin.skew(-86_400 * 10**9)
        run.capture.flush()
        run.standin.replay(rows("kernel", 10), NAMES, start)
        batch = run.all()
    assert np.abs(np.sort(batch.kernels["start"])[0] - (start + 1_000)) < 1_000_000


def test_ranges_of_cupti_are_joined() -> None:
    begin = rows("marker", 3, extra=2, id=[1, 2, 3], name=[1, 2, 3], domain=4, thread=7)
    end = rows("marker", 2, extra=4, id=[2, 1], thread=7)
    end["start"] += 100_000
    instant = rows("marker", 1, extra=1, id=9, name=1)
    with running() as run:
        run.standin.replay(np.concatenate([begin, end, instant]), NAMES, past())
        batch = run.all()
    read = {batch.strings[r["name"]]: r for r in batch.markers if r["end"] > r["start"]}
    assert set(read) == {NAMES[1], NAMES[2]}
    assert {int(r["thread"]) for r in read.values()} == {7}
    assert {batch.strings[r["domain"]] for r in read.values()} == {NAMES[4]}
    assert read[NAMES[1]]["end"] - read[NAMES[1]]["start"] == 110_000
    assert np.count_nonzero(batch.markers["end"] == batch.markers["start"]) == 1


def test_a_reader_that_does_not_read_costs_records_and_nothing_else() -> None:
    with running() as run:
        run.standin.load(40_000, 10_000_000)
        run.standin.wait()  # returns: the server was never made to wait
        run.capture.mark(1, 0, Edge.BEGIN)
        assert run.capture.loss().buffers > 0
        read = 0
        while len(batch := run.source.take(0.3).kernels):
            read += len(batch)
        assert 0 < read < 40_000
        run.standin.load(1_000, 100_000)  # it reads again: capture goes on
        batch = run.all()
    assert len(batch.kernels) == 1_000
    assert read + 1_000 + batch.loss.records >= 41_000
    assert batch.loss.records >= 40_000 - read


def test_marks_and_texts_come_in_order_and_with_the_thread_that_said_them() -> None:
    with running() as run:
        before = time.time_ns()
        for step in range(1_000):
            run.capture.mark(step, 3, Edge.BEGIN, StepFlag.PREFILL | StepFlag.DECODE)
            run.capture.mark(step, 3, Edge.END)
        assert run.capture.say(b'{"worker": {}}')
        batch = run.all()
    assert batch.steps["step"].tolist() == np.repeat(np.arange(1_000), 2).tolist()
    assert batch.steps["edge"].tolist() == [0, 1] * 1_000
    assert set(batch.steps["flags"].tolist()) == {6, 0}
    assert set(batch.steps["micro"].tolist()) == {3}
    assert set(batch.steps["thread"].tolist()) == {threading.get_native_id()}
    assert (batch.steps["time_ns"] >= before).all()
    assert (np.diff(batch.steps["time_ns"]) >= 0).all()
    assert batch.texts == [b'{"worker": {}}']


def test_a_full_ring_drops_messages_and_counts_them() -> None:
    with running() as run:
        said = sum(run.capture.say(b"x" * 1_000) for _ in range(2_000))
        assert 900 < said < 2_000
        assert run.capture.loss().messages == 2_000 - said
        assert not run.capture.say(b"x" * (256 * 1_024 + 1))
        batch = run.source.take(1)
        assert list(batch.texts) == [b"x" * 1_000] * said
        assert batch.loss.messages == 2_000 - said + 1
        assert run.capture.say(b"again")  # round the ring's end
        assert list(run.source.take(1).texts) == [b"again"]


def test_what_cupti_still_holds_is_not_said_to_have_been_handed_over() -> None:
    with running() as run:
        begun = time.time_ns()
        sent = rows("kernel", 1, start=0, end=1_500_000_000)  # launched now, and runs 1.5 s
        run.standin.replay(sent, NAMES, begun)
        run.standin.wait()
        early = run.source.take(0.6)
        assert time.time_ns() > begun + 600_000_000
        assert early.until_ns < begun + 500_000_000
        while not len(batch := run.source.take(1).kernels):
            assert time.time_ns() < begun + 10 * 10**9
        assert len(batch) == 1
        run.capture.flush()
        assert run.source.take(0).until_ns > begun + 1_500_000_000


def test_off_gives_cupti_back_and_on_takes_it_again() -> None:
    with running() as run:
        on = run.standin.enabled()
        run.source.order("off")
        run.capture.flush()
        assert run.standin.enabled() == 0
        run.standin.replay(rows("kernel", 10), NAMES, past())
        run.standin.wait()
        run.source.order("digest")
        run.capture.flush()
        assert run.standin.enabled() == on
        run.standin.replay(rows("kernel", 5), NAMES, past())
        batch = run.all()
    assert len(batch.kernels) == 5


def test_a_reader_takes_over_where_another_ended() -> None:
    with running() as run:
        run.capture.mark(1, 0, Edge.BEGIN)
        run.standin.replay(rows("kernel", 10), NAMES, past())
        run.standin.wait()
        run.capture.flush()
        assert len(run.source.take(1).kernels) == 10
        run.source.close()
        assert run.source.take(0).ended
        run.capture.mark(2, 0, Edge.BEGIN)
        run.standin.replay(rows("kernel", 7), NAMES, past())
        run.source = RegionSource(run.capture.fd)
        batch = run.all()
    assert len(batch.kernels) == 7
    assert batch.steps["step"].tolist() == [2]


WORKER = """
import sys
from kat_otel.instrumentation.capture.cupti import Capture
from kat_otel.instrumentation.settings import Settings
from tests.instrumentation import needs

needs.compiler()
capture = Capture.start(Settings(buffer_mib=2), cupti=False)
capture.mark(5, 0, 0)
print(capture.fd, flush=True)
sys.stdin.read()
"""


def test_a_worker_that_is_killed_has_ended_and_its_last_words_are_read() -> None:
    command = [sys.executable, "-c", WORKER]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, cwd=REPOSITORY) as worker:
        fd = os.open(f"/proc/{worker.pid}/fd/{int(worker.stdout.readline())}", os.O_RDWR)
        source = RegionSource(fd)
        os.close(fd)
        assert not source.take(0).ended
        worker.kill()
        worker.wait()
        batch = source.take(5)
        assert batch.ended
    source.close()


def test_a_file_that_is_no_region_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    with (tmp_path / "file").open("r+b") as file, pytest.raises(CaptureError, match="not sealed"):
        RegionSource(file.fileno())


@pytest.mark.parametrize("side", ["reader", "worker"])
def test_scribbles_of_the_other_side_crash_nobody(side: str) -> None:
    fuzz = [sys.executable, "bench/fuzz_region.py", side, "1500"]
    done = subprocess.run(fuzz, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_capture_without_cupti_carries_marks() -> None:
    capture = Capture.start(Settings(buffer_mib=2), cupti=False)
    source = RegionSource(capture.fd)
    capture.mark(1, 0, Edge.BEGIN)
    capture.stop()
    batch = source.take(1)
    assert batch.steps["step"].tolist() == [1]
    assert source.take(1).ended
    source.close()


def test_records_that_never_pause_come_a_flush_at_a_time() -> None:
    with running(buffer_mib=32) as run:
        run.standin.load(60_000, 100_000)
        sizes: list[int] = []
        deadline = time.monotonic() + 20
        while sum(sizes) < 60_000 and time.monotonic() < deadline:
            batch = run.source.take(0.5)
            sizes += [len(batch.kernels)] if len(batch.kernels) else []
        assert batch.loss == type(batch.loss)()
    assert sum(sizes) == 60_000
    assert len(sizes) <= 20  # 0.6 s: buffers of 250 kernels, a flush every 0.1 s
