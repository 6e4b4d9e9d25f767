"""Our NVTX tool: ranges as they close, with thread, domain and what NCCL's payloads say."""

from __future__ import annotations

import ctypes
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kat_otel.instrumentation.capture.cupti import Capture
from kat_otel.instrumentation.capture.library import PATH
from kat_otel.instrumentation.capture.records import Batch
from kat_otel.instrumentation.capture.region import RegionSource
from kat_otel.instrumentation.settings import Settings
from tests.instrumentation import needs
from tests.instrumentation.capturing import join, running

needs.compiler()

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The program, with our tool attached as its NVTX does it."""
    made = tmp_path_factory.mktemp("nvtx") / "libapp.so"
    command = ["cc", "-Wall", "-Werror", "-fPIC", "-shared", str(HERE / "nvtx_app.c")]
    subprocess.run([*command, "-o", str(made), "-ldl"], check=True)
    library: Any = ctypes.CDLL(str(made))
    pointer, number = ctypes.c_void_p, ctypes.c_uint64
    library.app_push_wide.argtypes = (ctypes.c_wchar_p,)
    library.app_start.restype, library.app_end.argtypes = number, (number,)
    library.app_domain.restype, library.app_domain_pop.argtypes = pointer, (pointer,)
    library.app_domain_push.argtypes = (pointer, ctypes.c_char_p)
    library.app_send.argtypes = (pointer, number, number, ctypes.c_int)
    library.app_reduce.argtypes = (pointer, number, ctypes.c_int)
    library.app_init_rank.argtypes = (pointer, number, ctypes.c_size_t)
    assert library.app_attach(str(PATH).encode()) == 0
    return library


class Listening:
    """A capture of ranges alone, and its reader."""

    def __init__(self) -> None:
        self.capture = Capture.start(Settings(buffer_mib=2), cupti=False)
        self.source = RegionSource(self.capture.fd)

    def all(self) -> Batch:
        self.capture.stop()
        batches: list[Batch] = []
        while not (batch := self.source.take(1)).ended:
            batches.append(batch)
        return join([*batches, batch])


@pytest.fixture
def listening() -> Iterator[Listening]:
    one = Listening()
    yield one
    one.capture.stop()
    one.source.close()


def ranges(batch: Batch) -> list[tuple[str, str]]:
    """(domain, name) of each range, as they closed."""
    named = sorted(batch.markers.tolist(), key=lambda marker: marker[1])
    return [(batch.strings[marker[4]], batch.strings[marker[3]]) for marker in named]


def test_a_range_that_is_pushed_and_popped(app: Any, listening: Listening) -> None:
    before = time.time_ns()
    assert app.app_push(b"outer") == 0
    assert app.app_push(b"inner") == 1
    assert app.app_pop() == 1
    assert app.app_pop() == 0
    assert app.app_pop() == -1
    batch = listening.all()
    assert ranges(batch) == [("", "inner"), ("", "outer")]
    inner, outer = sorted(batch.markers, key=lambda marker: marker["end"])
    assert before <= outer["start"] <= inner["start"] <= inner["end"] <= outer["end"]
    assert {int(one["thread"]) for one in (inner, outer)} == {threading.get_native_id()}
    assert (outer["group"], outer["bytes"], outer["peer"]) == (0, -1, -1)


def test_each_domain_nests_on_its_own(app: Any, listening: Listening) -> None:
    nccl, other = app.app_domain(b"NCCL"), app.app_domain(b"other")
    app.app_domain_push(nccl, b"first")
    app.app_domain_push(other, b"second")
    app.app_push(b"third")
    app.app_domain_pop(nccl)
    app.app_pop()
    app.app_domain_pop(other)
    assert ranges(listening.all()) == [("NCCL", "first"), ("", "third"), ("other", "second")]


def test_a_range_that_is_started_ends_on_another_thread(app: Any, listening: Listening) -> None:
    one, two = app.app_start(b"one"), app.app_start(b"two")
    ender = threading.Thread(target=app.app_end, args=(one,))
    ender.start()
    ender.join()
    app.app_end(one)  # again: it is over
    app.app_end(two)
    app.app_end(123_456_789)
    batch = listening.all()
    assert ranges(batch) == [("", "one"), ("", "two")]
    assert set(batch.markers["thread"].tolist()) == {threading.get_native_id()}


def test_what_nccl_says_of_a_send(app: Any, listening: Listening) -> None:
    domain = app.app_domain(b"NCCL")
    app.app_send(domain, 0xFEDC_BA98_7654_3210, 1 << 40, 5)
    app.app_domain_pop(domain)
    batch = listening.all()
    assert ranges(batch) == [("NCCL", "ncclSend")]
    send = batch.markers[0]
    assert int(send["group"]) == 0xFEDC_BA98_7654_3210
    assert (send["bytes"], send["peer"]) == (1 << 40, 5)


def test_what_an_older_nccl_says_of_a_reduce(app: Any, listening: Listening) -> None:
    domain = app.app_domain(b"NCCL")
    app.app_reduce(domain, 4_096, 3)
    app.app_domain_pop(domain)
    (reduce,) = listening.all().markers
    assert (reduce["group"], reduce["bytes"], reduce["peer"]) == (0, 4_096, 3)


@pytest.mark.parametrize(("size", "group"), [(8, 42), (4, 0), (2**64 - 1, 0)])
def test_a_payload_may_come_with_the_end_and_is_not_read_beyond_its_size(
    app: Any, listening: Listening, size: int, group: int
) -> None:
    domain = app.app_domain(b"NCCL")
    app.app_init_rank(domain, 42, size)
    (init,) = listening.all().markers
    assert init["group"] == group


def test_wide_names_become_plain(app: Any, listening: Listening) -> None:
    app.app_push_wide("größe")
    app.app_pop()
    assert ranges(listening.all()) == [("", "gr??e")]


def test_too_many_open_ranges_are_not_kept_and_the_others_end_right(
    app: Any, listening: Listening
) -> None:
    for i in range(200):
        assert app.app_push(f"range {i}".encode()) == i
    for i in reversed(range(200)):
        assert app.app_pop() == i
    assert [name for _, name in ranges(listening.all())] == [
        f"range {i}" for i in reversed(range(128))
    ]


def test_ranges_from_before_a_capture_are_not_its_ranges(app: Any) -> None:
    app.app_push(b"before any")
    first = Listening()
    app.app_push(b"of the first")
    first.all()
    first.source.close()
    second = Listening()
    app.app_push(b"of the second")
    for _ in range(3):
        app.app_pop()
    assert ranges(second.all()) == [("", "of the second")]
    second.source.close()


def test_names_of_ranges_leave_room_for_those_of_kernels(app: Any, listening: Listening) -> None:
    for i in range(20_000):
        app.app_push(f"step {i}".encode())
        app.app_pop()
    batch = listening.all()
    names = [name for _, name in ranges(batch)]
    assert 10_000 < len(set(names)) < 16_400
    assert "(names full)" in names


def test_a_stalled_reader_costs_ranges_and_counts_them(app: Any) -> None:
    with running() as run:
        for _ in range(60_000):
            app.app_push(b"again")
            app.app_pop()
        batch = run.all()
    assert 0 < len(batch.markers) < 60_000
    assert len(batch.markers) + batch.loss.records == 60_000
