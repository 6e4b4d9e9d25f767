"""Capture starts whole or not at all, says why not, and never outlives a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kat_otel.errors import CaptureError
from kat_otel.instrumentation.capture import cupti, libcupti, library
from kat_otel.instrumentation.capture.cupti import Capture
from kat_otel.instrumentation.capture.region import RegionSource
from kat_otel.instrumentation.settings import Settings
from tests.instrumentation.capturing import running
from tests.instrumentation.standin import Standin

REPOSITORY = Path(__file__).resolve().parents[3]


def refused(standin: Standin, **settings: str) -> CaptureError:
    """Why capture does not start; and that nothing is left behind, and marks still work."""
    with pytest.raises(CaptureError) as caught:
        Capture.start(Settings(cupti=standin.path, buffer_mib=2, **settings))
    assert standin.enabled() == 0
    assert "kat-capture" not in threads()
    capture = Capture.start(Settings(buffer_mib=2), cupti=False)
    capture.mark(1, 0, 0)
    source = RegionSource(capture.fd)
    capture.stop()
    assert source.take(1).steps["step"].tolist() == [1]
    source.close()
    return caught.value


def threads() -> list[str]:
    """Names of this process's threads, as the system has them."""
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]


@pytest.mark.parametrize(
    ("function", "result", "reason", "remedy"),
    [
        ("cuptiGetVersion", 999, "no NVIDIA driver", "nvidia-smi"),
        ("cuptiSubscribe", 15, "no NVIDIA driver", "nvidia-smi"),
        ("cuptiSubscribe", 39, "another tool has CUPTI", "nsys"),
        ("cuptiActivityRegisterCallbacks", 39, "another tool has CUPTI", "nsys"),
        ("cuptiActivityEnable", 39, "another tool has CUPTI", "nsys"),
        ("cuptiActivityEnable", 999, "no NVIDIA driver", "nvidia-smi"),
        ("cuptiActivityEnable", 35, "does not allow profiling", "NVreg"),
        ("cuptiActivityEnable", 27, "CUPTI refuses", "versions"),
        ("cuptiSetThreadIdType", 8, "CUPTI refuses", "versions"),
    ],
)
def test_a_cupti_that_says_no_is_quoted_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, function: str, result: int, reason: str, remedy: str
) -> None:
    monkeypatch.setenv("STANDIN_CUPTI_FAIL", f"{function}={result}")
    error = refused(Standin())
    assert reason in error.reason
    assert f"{function} says" in error.reason
    assert f"({result})" in error.reason
    assert remedy in error.remedy


@pytest.mark.parametrize(("kind", "result"), [(51, 39), (17, 999), (1, 35)])
def test_a_kind_that_fails_undoes_those_before_it(
    monkeypatch: pytest.MonkeyPatch, kind: int, result: int
) -> None:
    monkeypatch.setenv("STANDIN_CUPTI_FAIL", f"cuptiActivityEnable={result}")
    monkeypatch.setenv("STANDIN_CUPTI_FAIL_KIND", str(kind))
    refused(Standin())


@pytest.mark.parametrize("kind", [51, 38])
def test_a_kind_that_this_cupti_does_not_have_is_done_without(
    monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    monkeypatch.setenv("STANDIN_CUPTI_FAIL", "cuptiActivityEnable=21")
    monkeypatch.setenv("STANDIN_CUPTI_FAIL_KIND", str(kind))
    with running() as run:
        assert run.standin.enabled() > 5


def test_another_tool_that_has_cupti_keeps_it() -> None:
    standin = Standin()
    standin.hold()
    assert "another tool has CUPTI" in refused(standin).reason


def test_a_cupti_older_than_all_we_know_is_refused() -> None:
    assert "older than" in refused(Standin(14)).reason


def test_a_newer_cupti_is_taken_with_a_note() -> None:
    with running(140200) as run:
        assert "CUPTI 140200 is newer" in run.capture.notes[0]
        assert run.capture.version == 140200
    with running(130501) as run:
        assert run.capture.notes == ()


def test_no_libcupti_says_where_was_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = [libcupti.Candidate("/nowhere/libcupti.so", where) for where in ("wheel", "system")]
    monkeypatch.setattr(cupti.libcupti, "find", lambda _: nowhere)
    with pytest.raises(CaptureError, match="tried: wheel, system") as caught:
        Capture.start(Settings())
    assert "pip install" in caught.value.remedy


def test_a_library_that_is_no_libcupti_is_refused() -> None:
    with pytest.raises(CaptureError, match="has no cuptiGetVersion"):
        Capture.start(Settings(cupti="libm.so.6"))
    with pytest.raises(CaptureError, match="does not load"):
        Capture.start(Settings(cupti="/nowhere/libcupti.so"))


def test_there_is_one_capture_a_process() -> None:
    with running() as run, pytest.raises(CaptureError, match="already"):
        Capture.start(Settings(cupti=run.standin.path))


def test_a_library_that_was_not_built_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library.load.cache_clear()
    monkeypatch.setattr(library, "PATH", tmp_path / "libkat_capture.so")
    with pytest.raises(CaptureError, match="was not built") as caught:
        Capture.start(Settings(), cupti=False)
    assert "compiler" in caught.value.remedy
    (tmp_path / "libkat_capture.so").write_text("no library")
    with pytest.raises(CaptureError, match="does not load"):
        library.load()


@pytest.mark.parametrize(("graphs", "traced"), [("graph", 1), ("node", 0)])
def test_graphs_are_traced_whole_unless_nodes_are_asked_for(graphs: str, traced: int) -> None:
    with running(graphs="graph") as run:
        whole = run.standin.enabled()
    with running(graphs=graphs) as run:
        assert run.standin.enabled() == whole - 1 + traced


def test_the_mode_of_the_settings_holds_from_the_start() -> None:
    with running(mode="off") as run:
        run.capture.flush()
        assert run.standin.enabled() == 0


FORK = """
import os
from kat_otel.instrumentation.capture.cupti import Capture
from kat_otel.instrumentation.capture.region import RegionSource
from kat_otel.instrumentation.settings import Settings
from tests.instrumentation import needs

needs.compiler()

capture = Capture.start(Settings(buffer_mib=2), cupti=False)
source = RegionSource(capture.fd)
capture.mark(1, 0, 0)
child = os.fork()
if not child:
    capture.mark(2, 0, 0)
    said = capture.say(b"from the child")
    capture.flush()
    capture.order("off")
    capture.stop()
    own = Capture.start(Settings(buffer_mib=2), cupti=False)
    mine = RegionSource(own.fd)
    own.mark(7, 0, 0)
    own.flush()
    batch = mine.take(1)
    own.stop()
    right = not said and batch.steps["step"].tolist() == [7]
    os._exit(0 if right and batch.steps["thread"][0] == os.getpid() else 1)
assert os.waitpid(child, 0)[1] == 0
capture.mark(3, 0, 0)
capture.stop()
batch = source.take(1)
assert batch.steps["step"].tolist() == [1, 3], batch.steps
assert not batch.texts
assert source.take(1).ended
"""


def test_a_forked_child_does_not_touch_the_region_and_may_have_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_helper_gets_the_region_and_other_children_do_not() -> None:
    read = (
        "import sys; from kat_otel.instrumentation.capture.region import RegionSource;"
        "print(RegionSource(int(sys.argv[1])).take(1).steps['step'].tolist())"
    )
    with running() as run:
        run.capture.mark(4, 0, 0)
        command = [sys.executable, "-c", read, str(run.capture.fd)]
        for fds, said in (((run.capture.fd,), "[4]\n"), ((), "")):
            done = subprocess.run(
                command, pass_fds=fds, cwd=REPOSITORY, capture_output=True, text=True, check=False
            )
            assert done.stdout == said


def test_signals_of_the_server_are_not_taken_by_our_thread() -> None:
    with running():
        for task in Path("/proc/self/task").iterdir():
            if (task / "comm").read_text().strip() == "kat-capture":
                status = (task / "status").read_text()
                blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
                assert blocked >> (15 - 1) & 1  # SIGTERM
                assert int(task.name) != os.getpid()
                return
    pytest.fail("no thread named kat-capture")
