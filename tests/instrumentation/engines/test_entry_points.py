"""The ways in: opentelemetry-instrument, the engines' plugins, the .pth of the wheel."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from kat_otel.instrumentation.instrumentor import KatInstrumentor, plugin
from tests.instrumentation.engines.programs import REPOSITORY, Programs

INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")

SERVER = """
import multiprocessing
import doubles
from vllm.v1.worker.gpu_worker import Worker, config

def work():
    worker = Worker(config(), 0, 0)
    worker.init_device()
    worker.execute_dummy_batch()
    worker.execute_dummy_batch()

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == 0
    print(child.pid)
"""


def test_opentelemetry_instrument_reaches_the_workers_of_an_unchanged_program(
    programs: Programs,
) -> None:
    done = programs.run(
        SERVER,
        str(INSTRUMENT),
        sys.executable,
        OTEL_TRACES_EXPORTER="none",
        PYTHONWARNINGS="default",
    )
    assert done.pids() == [int(done.output)]
    assert [step for step, _ in done.begun()] == [0, 1]


def test_an_environment_variable_alone_reaches_them_too(programs: Programs) -> None:
    done = programs.run(SERVER, KAT_OTEL="on", PYTHONWARNINGS="default")
    assert [step for step, _ in done.begun()] == [0, 1]


@pytest.mark.parametrize("said", [{}, {"KAT_OTEL": "off"}, {"KAT_OTEL": ""}], ids=str)
def test_installed_and_not_asked_nothing_is_done(programs: Programs, said: dict[str, str]) -> None:
    done = programs.run(SERVER, PYTHONWARNINGS="default", **said)
    assert done.events == []


def test_both_ways_at_once_count_each_step_once(programs: Programs) -> None:
    done = programs.run(
        "from kat_otel.instrumentation.instrumentor import plugin\nplugin()\n" + SERVER,
        str(INSTRUMENT),
        sys.executable,
        KAT_OTEL="on",
        OTEL_TRACES_EXPORTER="none",
        PYTHONWARNINGS="default",
    )
    assert [step for step, _ in done.begun()] == [0, 1]
    assert "already instrumented" not in done.errors


def test_the_installed_entry_points_lead_here() -> None:
    (ours,) = entry_points(group="opentelemetry_instrumentor", name="kat_otel")
    assert ours.load() is KatInstrumentor
    for group in ("vllm.general_plugins", "sglang.srt.plugins"):
        (ours,) = entry_points(group=group, name="kat_otel")
        assert ours.load() is plugin


def started(programs: Programs, program: str, **environment: str) -> str:
    """What a program prints in an interpreter that reads our .pth and no other."""
    site = "import site; site.addpackage(sys.argv[1], 'kat_otel_start.pth', set());"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; {site} {program}", str(REPOSITORY)],
        env=programs.environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_pth_imports_nothing_of_ours_unless_it_is_asked(programs: Programs) -> None:
    show = "print(*(m for m in sys.modules if m.startswith('kat_otel')))"
    assert started(programs, show) == "\n"
    asked = started(programs, show, KAT_OTEL="on")
    assert "kat_otel.instrumentation.start" in asked
    assert "kat_otel.instrumentation.instrumentor" not in asked


def test_the_pth_does_nothing_in_our_own_helper(programs: Programs) -> None:
    show = "print([f for f in sys.meta_path if 'kat_otel' in type(f).__module__])"
    assert started(programs, show, KAT_OTEL="on", KAT_HELPER="1") == "[]\n"


def test_an_import_goes_on_whatever_happens_to_us(programs: Programs) -> None:
    done = programs.run(
        """
        import sys
        sys.modules["wrapt"] = None     # an environment in which we cannot be imported
        from kat_otel.instrumentation import start
        start.run()
        start.run()
        assert sum("kat_otel" in type(f).__module__ for f in sys.meta_path) == 1
        import deepspeed
        print(deepspeed.__version__)
        assert not any("kat_otel" in type(f).__module__ for f in sys.meta_path)
        """,
        KAT_OTEL="on",
    )
    assert done.output == "0.19.8\n"
    assert "nothing is instrumented" in done.errors
