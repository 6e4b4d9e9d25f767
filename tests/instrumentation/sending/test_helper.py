"""The helper process: it outlives the worker just long enough, and disturbs nobody."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kat_otel.capture import capture_nonce
from kat_otel.identity import trace_ids
from kat_otel.instrumentation.sending import helping
from kat_otel.instrumentation.sending.helping import Helper, environment_of, start_helper
from kat_otel.instrumentation.sending.sender import OPERATOR
from kat_otel.instrumentation.settings import Settings
from kat_otel.spans import SpanTable, concat
from tests.instrumentation.simulated import NONCE, Collector

COMMAND = (sys.executable, "-P", "-m", "tests.instrumentation.helper_process")
SETTINGS = Settings(sample_every=0, budget=0.0, recorder_seconds=60)
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


class Pipe:
    """The worker's end of the region."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe()
        self.open = True

    def say(self, *lines: object) -> None:
        os.write(self._write, b"".join(f"{line}\n".encode() for line in lines))

    def end(self) -> None:
        if self.open:
            self.open = False
            os.close(self._write)

    def close(self) -> None:
        self.end()
        os.close(self.fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def helper(pipe: Pipe, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Helper]:
    monkeypatch.setenv(ENDPOINT, collector.url)
    started = Helper(pipe.fd, SETTINGS, COMMAND, pauses=(0.0,))
    yield started
    started.close()


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Helper, Pipe, Collector]]:
    """A helper that several tests look at."""
    pipe, collector = Pipe(), Collector()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENDPOINT, collector.url)
        started = Helper(pipe.fd, SETTINGS, COMMAND, pauses=())
    yield started, pipe, collector
    started.close()
    pipe.close()
    collector.close()


def received(collector: Collector) -> SpanTable:
    requests = [r for r in collector.requests if r.path == "/v1/traces"]
    return concat([SpanTable.empty(), *(r.table for r in requests)])


def wait_for_steps(collector: Collector, *steps: int) -> None:
    collector.wait_for(lambda _: set(steps) <= set(received(collector).step.tolist()))


def wait_gone(pid: int, timeout: float = 15.0) -> None:
    """Waits for the end of a process that is nobody's child here."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([watched], [], [], timeout)[0], f"process {pid} did not end"
    finally:
        os.close(watched)


def test_it_sends_and_drains_when_the_worker_is_gone(
    helper: Helper, pipe: Pipe, collector: Collector
) -> None:
    pipe.say(1)
    wait_for_steps(collector, 1)
    pipe.say(2, 3)
    pipe.end()
    wait_for_steps(collector, 2, 3)


def test_it_is_a_group_of_its_own_nice_and_holds_no_strangers_files(running) -> None:
    helper, pipe, collector = running
    pipe.say(1)
    wait_for_steps(collector, 1)
    assert os.getsid(helper.pid) == helper.pid != os.getsid(0)
    nicer = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    assert os.getpriority(os.PRIO_PROCESS, helper.pid) == nicer
    held = {str(fd.readlink()) for fd in Path(f"/proc/{helper.pid}/fd").iterdir()}
    mine = str(Path(f"/proc/self/fd/{pipe.fd}").readlink())
    pipes = {name for name in held if name.startswith("pipe:")} - {mine}
    assert mine in held
    ours = {str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in (1, 2)}
    assert pipes <= ours  # its standard error is the server's


def test_ctrl_c_is_for_the_server(running) -> None:
    helper, pipe, collector = running
    pid = helper.pid
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGHUP)
    pipe.say(12)
    wait_for_steps(collector, 12)
    assert helper.pid == pid


def test_told_to_end_it_drains_first(helper: Helper, pipe: Pipe, collector: Collector) -> None:
    pipe.say(1)
    wait_for_steps(collector, 1)
    pipe.say(2)
    helper.close()
    assert 2 in received(collector).step
    wait_gone(helper.pid)
    assert not helper.gave_up.is_set()


def test_signals_send_what_is_recorded_and_switch_off_and_on(running) -> None:
    helper, pipe, collector = running
    pipe.say(21, 22)
    wait_for_steps(collector, 21, 22)
    os.kill(helper.pid, signal.SIGUSR1)
    _, low = trace_ids(capture_nonce(NONCE, OPERATOR), np.array([21, 22]))
    collector.wait_for(lambda _: set(low.tolist()) <= set(received(collector).trace_lo.tolist()))
    os.kill(helper.pid, signal.SIGUSR2)
    collector.wait_for(lambda requests: requests[-1].path == "/ordered/off")
    os.kill(helper.pid, signal.SIGUSR2)
    collector.wait_for(lambda requests: requests[-1].path == "/ordered/full")
    pipe.say(23)
    wait_for_steps(collector, 23)


def test_a_helper_that_dies_is_started_again_but_not_for_ever(
    helper: Helper, pipe: Pipe, collector: Collector
) -> None:
    first = helper.pid
    pipe.say("crash")
    wait_gone(first)
    pipe.say(1)
    wait_for_steps(collector, 1)
    assert helper.pid != first
    os.kill(helper.pid, signal.SIGKILL)
    assert helper.gave_up.wait(15)


WORKER = """
import os, sys
from tests.instrumentation.sending.test_helper import COMMAND, SETTINGS, Helper
helper = Helper(int(sys.argv[1]), SETTINGS, COMMAND)
print(helper.pid, flush=True)
sys.stdin.read()
"""


def test_a_worker_that_is_killed_leaves_no_helper_behind(pipe: Pipe, collector: Collector) -> None:
    environment = {**os.environ, ENDPOINT: collector.url}
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(pipe.fd)],
        pass_fds=(pipe.fd,),
        env=environment,
        cwd=Path(__file__).resolve().parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        pid = int(worker.stdout.readline())
        pipe.say(1)
        wait_for_steps(collector, 1)
        worker.kill()
        worker.wait()
    pipe.say(2)  # still in the region when the worker died, which says nothing of its end
    wait_gone(pid)
    assert 2 in received(collector).step


def test_the_environment_loads_nothing_into_the_helper() -> None:
    auto = "/venv/site-packages/opentelemetry/instrumentation/auto_instrumentation"
    worker = {
        "LD_PRELOAD": "libjemalloc.so",
        "CUDA_INJECTION64_PATH": "libkat.so",
        "NVTX_INJECTION64_PATH": "libkat.so",
        "PYTHONSTARTUP": "hello.py",
        "CUDA_VISIBLE_DEVICES": "3",
        "OTEL_EXPORTER_OTLP_HEADERS": "a=b",
        "PYTHONPATH": os.pathsep.join([auto, "/app"]),
    }
    settings = Settings(mode="digest", sample_every=7, disabled=False)
    kept = environment_of(settings, worker)
    assert not {"LD_PRELOAD", "CUDA_INJECTION64_PATH", "NVTX_INJECTION64_PATH"} & set(kept)
    assert "PYTHONSTARTUP" not in kept
    assert kept["CUDA_VISIBLE_DEVICES"] == "3"
    assert kept["OTEL_EXPORTER_OTLP_HEADERS"] == "a=b"
    assert kept["KAT_HELPER"] == "1"
    assert kept["OMP_NUM_THREADS"] == "1"
    first, *others = kept["PYTHONPATH"].split(os.pathsep)
    assert first == "/app"
    assert others == [str(Path(__file__).resolve().parents[3])]
    assert Settings.read(kept) == settings


@pytest.mark.parametrize("problem", ["no python", "does not run"])
def test_where_no_helper_can_be_started_the_server_runs_on(
    monkeypatch: pytest.MonkeyPatch, caplog, problem: str, pipe: Pipe
) -> None:
    if problem == "no python":
        monkeypatch.setattr(helping.sys, "executable", "")
    else:
        monkeypatch.setattr(helping.subprocess, "Popen", _refuse)
    assert start_helper(pipe.fd, Settings()) is None
    assert "no helper process" in caplog.text


def _refuse(*_: object, **__: object) -> None:
    raise OSError("too many processes")
