"""Processes of every kind: who starts capture, who shares identity, who is left alone."""

from __future__ import annotations

import pytest

from tests.instrumentation.engines.programs import Programs

CHILDREN = """
import os, multiprocessing, threading
import doubles
from kat_otel.instrumentation.instrumentor import ensure
from kat_otel.instrumentation.session import session
ensure()
import torch.distributed

def work(rank, world, before):
    from kat_otel import step
    if before is not None:
        before.wait(30)                 # this rank starts when another one has run
    torch.distributed.init_process_group(world_size=world, rank=rank)
    for _ in range(3):
        with step():
            pass
    assert session()._identifier.join(30)

if __name__ == "__main__":
    context = multiprocessing.get_context(os.environ["METHOD"])
    late = context.Event()
    first = context.Process(target=work, args=(0, 2, None))
    second = context.Process(target=work, args=(1, 2, late))
    first.start(); second.start()
    first.join(); late.set(); second.join()
    assert (first.exitcode, second.exitcode) == (0, 0)
    print(first.pid, second.pid)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_capture_on_their_own_and_share_ids_even_if_one_is_late(
    programs: Programs, method: str
) -> None:
    done = programs.run(CHILDREN, METHOD=method, PYTHONWARNINGS="default")
    children = sorted(map(int, done.output.split()))
    assert done.pids() == children  # neither the parent nor trackers and servers of processes
    for pid in children:
        assert len(done.of("start", pid)) == len(done.of("helper", pid)) == 1
        assert [step for step, _ in done.begun(pid)] == [0, 1, 2]
    workers = done.said("worker")
    assert sorted(w["resource"]["rank"] for w in workers) == [0, 1]
    assert len({(w["nonce"], w["resource"]["instance"], w["group_size"]) for w in workers}) == 1


def test_a_fork_of_a_worker_begins_anew_and_leaves_the_parents_capture_alone(
    programs: Programs,
) -> None:
    done = programs.run(
        """
        import os, sys
        from kat_otel import step
        with step(): pass
        with step(): pass
        pid = os.fork()
        if pid == 0:
            with step(): pass
            sys.exit(0)         # runs what is registered at exit
        assert os.waitpid(pid, 0)[1] == 0
        with step(): pass
        print(os.getpid(), pid)
        """,
        PYTHONWARNINGS="default",
    )
    parent, child = map(int, done.output.split())
    assert [step for step, _ in done.begun(parent)] == [0, 1, 2]
    assert [step for step, _ in done.begun(child)] == [0]
    for pid in (parent, child):
        assert [len(done.of(kind, pid)) for kind in ("start", "helper", "stop", "close")] == [1] * 4


def test_a_fork_within_a_step_ends_none_of_the_parents(programs: Programs) -> None:
    done = programs.run(
        """
        import os, sys
        from kat_otel import step
        with step():
            if os.fork() == 0:
                os._exit(0)
            os.wait()
        print(os.getpid())
        """,
        PYTHONWARNINGS="default",
    )
    assert done.pids() == [int(done.output)]
    assert [e["edge"] for e in done.of("mark")] == [0, 1]


def test_nothing_is_started_by_hooks_alone(programs: Programs) -> None:
    done = programs.run(
        """
        import threading
        from kat_otel.instrumentation.instrumentor import ensure
        ensure()
        import vllm.v1.worker.gpu_worker, sglang.srt.managers.scheduler
        import tensorrt_llm._torch.pyexecutor.py_executor, deepspeed.inference.engine
        assert threading.enumerate() == [threading.main_thread()]
        """
    )
    assert done.events == []


STEP = """
from kat_otel.instrumentation.instrumentor import KatInstrumentor, ensure
ensure()
from kat_otel import step
with step(): pass
from vllm.v1.worker.gpu_worker import Worker, config
worker = Worker(config(), 0, 0)
worker.init_device()
worker.execute_dummy_batch()
print(len(KatInstrumentor().hooked))
"""


@pytest.mark.parametrize(
    "environment",
    [{"KAT_MODE": "off"}, {"OTEL_SDK_DISABLED": "true"}, {"KAT_HELPER": "1"}],
    ids=str,
)
def test_kill_switches(programs: Programs, environment: dict[str, str]) -> None:
    done = programs.run(STEP, **environment)
    assert done.events == []
    assert done.output == "0\n"


def test_disabled_by_name_no_engine_is_hooked(programs: Programs) -> None:
    done = programs.run(STEP, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="redis, kat_otel")
    assert done.output == "0\n"
    assert len(done.begun()) == 1  # what the program itself says is still a step


def test_busy_cupti_is_said_and_steps_are_marked_all_the_same(programs: Programs) -> None:
    done = programs.run("from kat_otel import step\nwith step(): pass", FAKE_CUPTI_BUSY="1")
    assert [e["cupti"] for e in done.of("start")] == [False]
    assert len(done.begun()) == 1
    assert "stop the profiler" in done.errors


def test_without_capture_or_helper_the_program_runs_on(programs: Programs) -> None:
    done = programs.run(
        """
        import sys
        broken = sys.modules["kat_otel.instrumentation.sending.helping"]
        def start_helper(*_):
            raise OSError("no processes left")
        broken.start_helper = start_helper
        from kat_otel import step
        for number in range(5):
            with step(): print(number)
        """
    )
    assert done.output.split() == list("01234")
    assert [e["kind"] for e in done.events] == ["start", "stop"]
    assert done.errors.count("no processes left") >= 1
    assert done.errors.count("the hook failed, the server runs on") == 1


def test_a_helper_that_cannot_be_started_ends_capture_and_no_more(programs: Programs) -> None:
    done = programs.run("from kat_otel import step\nwith step(): print(1)", FAKE_NO_HELPER="1")
    assert [e["kind"] for e in done.events] == ["start", "stop"]
    assert (done.output, done.errors) == ("1\n", "")


def test_marks_that_fail_reach_nobody_and_end(programs: Programs) -> None:
    done = programs.run(
        """
        from kat_otel.instrumentation.instrumentor import KatInstrumentor, ensure
        ensure()
        from vllm.v1.worker.gpu_worker import Worker, config
        worker = Worker(config(), 0, 0)
        worker.init_device()
        for _ in range(10):
            worker.execute_dummy_batch()
        print(worker.forwards, *sorted(KatInstrumentor().hooked))
        """,
        FAKE_MARK_FAILS="1",
    )
    assert done.output.startswith("10 ")
    assert "execute_dummy_batch" not in done.output  # taken off
    assert "the region is gone" in done.errors


def test_a_dead_store_keeps_nobody_waiting_and_is_said(programs: Programs) -> None:
    done = programs.run(
        """
        import time
        from kat_otel.instrumentation.identity import identify
        identify.WAITS = (0, 0.01, 0.01)
        from kat_otel.instrumentation.session import session
        import torch.distributed
        torch.distributed.init_process_group(world_size=2, rank=1)
        from kat_otel import step
        with step(): pass
        assert session()._identifier.join(30)
        """,
        FAKE_STORE_DEAD="1",
    )
    assert "Connection reset by peer" in done.errors
    (worker,) = done.said("worker")
    assert (worker["resource"]["rank"], worker["resource"]["world_size"]) == (1, 2)
    assert worker["group_size"] == 1  # its steps close without the others


def test_resource_attributes_are_opentelemetrys(programs: Programs) -> None:
    done = programs.run(
        """
        from kat_otel.instrumentation.session import session
        from kat_otel import step
        with step(): pass
        assert session()._identifier.join(30)
        """,
        OTEL_SERVICE_NAME="chat",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=a%2Cb, kat.instance.id=llama-a,x",
    )
    (worker,) = done.said("worker")
    attributes = worker["resource"]["attributes"]
    assert worker["resource"]["instance"] == "llama-a"
    assert attributes["service.name"] == "chat"
    assert attributes["deployment.environment.name"] == "a,b"
    assert worker["resource"]["host"]
    assert attributes["process.pid"] == worker_pid(done.of("say"))


def worker_pid(said: list[dict[str, int]]) -> int:
    return said[0]["pid"]
