"""Plain PyTorch: what the program says is a step, or its outermost module."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.instrumentation.engines.programs import Programs


def test_a_context_manager_and_a_decorator(programs: Programs) -> None:
    done = programs.run(
        """
        import kat_otel
        with kat_otel.step():
            pass
        @kat_otel.step()
        def forward(x):
            "Doubles."
            return 2 * x
        assert forward(3) == 6 and forward.__doc__ == "Doubles."
        with kat_otel.step(step=40, micro=1):
            pass
        with kat_otel.step():
            with kat_otel.step():   # of a function that is called by another one's step
                pass
        try:
            with kat_otel.step():
                raise KeyError("the program's own")
        except KeyError as error:
            print(error)
        """
    )
    assert [step for step, _ in done.begun()] == [0, 1, 40, 41, 42]
    assert [e["micro"] for e in done.of("mark") if e["step"] == 40] == [1, 1]
    assert [e["edge"] for e in done.of("mark")] == [0, 1] * 5
    assert done.output == '"the program\'s own"\n'


def test_steps_of_several_threads_are_marked_on_each(programs: Programs) -> None:
    done = programs.run(
        """
        import threading, kat_otel
        @kat_otel.step()
        def forward(barrier):
            barrier.wait(10)
        barrier = threading.Barrier(2)
        threads = [threading.Thread(target=forward, args=(barrier,)) for _ in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    )
    pairs = {(e["thread"], e["step"]) for e in done.of("mark")}
    assert len(pairs) == 2
    assert len({thread for thread, _ in pairs}) == len({step for _, step in pairs}) == 2


MODEL = """
from torch.nn import Module
layer = lambda: Module()
model = Module(Module(layer(), layer()), layer())
"""


def test_each_forward_pass_of_a_named_module_is_a_step_until_it_is_let_go(
    programs: Programs,
) -> None:
    done = programs.run(
        MODEL
        + """
import kat_otel
handle = kat_otel.instrument(model)
model(1)
model(2)
handle.remove()
model(3)
assert not model._forward_hooks and not model._forward_pre_hooks
"""
    )
    assert [step for step, _ in done.begun()] == [0, 1]
    assert [e["edge"] for e in done.of("mark")] == [0, 1, 0, 1]


def test_the_outermost_module_is_found_and_no_other_pays(programs: Programs) -> None:
    done = programs.run(
        """
        from kat_otel.instrumentation.instrumentor import KatInstrumentor, ensure
        ensure()
        """.replace("        ", "")
        + MODEL
        + """
from torch.nn.modules.module import _global_forward_pre_hooks as everywhere
assert len(everywhere) == 1
layer()(1)                      # a lone layer is no model
assert len(everywhere) == 1
model(1)
assert len(everywhere) == 0
assert not any(child._forward_hooks for child in model.children())
model(2)
KatInstrumentor().uninstrument()
assert not model._forward_hooks
model(3)
"""
    )
    assert [step for step, _ in done.begun()] == [0, 1]
    assert [e["edge"] for e in done.of("mark")] == [0, 1, 0, 1]


def test_a_module_within_an_engine_is_no_step(programs: Programs) -> None:
    done = programs.run(
        "from kat_otel.instrumentation.instrumentor import ensure\nensure()\nimport vllm\n"
        + MODEL
        + "model(1)\n"
    )
    assert done.events == []


def test_importing_the_package_imports_nothing_of_ours(programs: Programs) -> None:
    done = programs.run(
        "import sys, kat_otel; print([m for m in sys.modules if 'kat_otel.' in m])", doubles=False
    )
    assert done.output == "[]\n"


if importlib.util.find_spec("torch") is not None:  # opt-in: not among our own requirements

    @pytest.mark.slow
    def test_with_torch_itself(programs: Programs, free_port: int) -> None:
        paths = programs.environment()["PYTHONPATH"].partition("fakes:")[2]
        rank = """
            import os, sys
            from kat_otel.instrumentation.instrumentor import ensure
            from kat_otel.instrumentation.session import session
            ensure()
            import torch
            from torch import distributed, nn
            distributed.init_process_group("gloo")
            model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            for _ in range(3):
                distributed.all_reduce(model(torch.ones(1, 4)).detach())
            assert session()._identifier.join(30)
            distributed.destroy_process_group()
            """
        environment = {
            "PYTHONPATH": paths,
            "PYTHONWARNINGS": "default",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port),
            "WORLD_SIZE": "2",
        }
        done = programs.finish(
            [
                programs.start(rank, sys.executable, RANK=str(number), **environment)
                for number in range(2)
            ]
        )
        assert done.code == 0, done.errors
        for pid in done.pids():
            assert [step for step, _ in done.begun(pid)] == [0, 1, 2]
        assert sorted(w["resource"]["rank"] for w in done.said("worker")) == [0, 1]
        assert len({w["nonce"] for w in done.said("worker")}) == 1
