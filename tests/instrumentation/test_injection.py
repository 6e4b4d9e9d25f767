"""A C++ server: the driver loads our library, and a helper process gets its records."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kat_otel.instrumentation.capture.library import PATH
from tests.instrumentation import standin
from tests.instrumentation.capturing import rows

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

# Stands for kat_otel.instrumentation.sending.helper: says what it was given and reads what comes.
HELPER = """\
#!{python}
import os, sys
sys.path.insert(0, {repository!r})
from kat_otel.instrumentation.capture.region import RegionSource
from tests.instrumentation import needs

needs.compiler()
fd = int(sys.argv[-1])
source = RegionSource(fd)
kernels = []
names = set()
while not (batch := source.take(5)).ended:
    kernels.extend(batch.kernels["correlation"].tolist())
    names |= {{batch.strings[name] for name in batch.kernels["name"]}}
left = [key for key in os.environ if key.endswith("INJECTION64_PATH")]
with open({out!r} + ".part", "w") as out:
    print(sys.argv[1:-1], sorted(kernels), sorted(names), left, file=out)
os.rename({out!r} + ".part", {out!r})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("driver") / "server"
    command = ["cc", "-Wall", "-Werror", str(HERE / "driver.c"), "-o", str(program), "-ldl"]
    subprocess.run(command, check=True)
    return program


def serve(server: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the server until its helper has read something, or for a moment if there is none."""
    sent = rows("kernel", 20, name=np.arange(20) % 2, correlation=np.arange(20))
    standin.write(folder / "rows", sent, ["gemm", "attention"])
    env = {
        **os.environ,
        "CUDA_INJECTION64_PATH": str(PATH),
        "STANDIN_CUPTI_REPLAY": str(folder / "rows"),
        "KAT_CUPTI_LIBRARY": str(standin.build()),
        **environment,
    }
    return subprocess.run(
        [server], env=env, input="end\n", capture_output=True, text=True, check=False, timeout=30
    )


def helper(folder: Path) -> tuple[Path, Path]:
    """An executable named as the installed helper is, and the file that it writes."""
    out = folder / "read"
    (folder / "bin").mkdir()
    program = folder / "bin" / "kat-otel-helper"
    program.write_text(
        HELPER.format(python=sys.executable, repository=str(REPOSITORY), out=str(out))
    )
    program.chmod(0o755)
    return program, out


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, "the helper wrote nothing"
        time.sleep(0.01)
    return path.read_text()


EXPECTED = f"{list(range(20))} ['attention', 'gemm'] []\n"


def test_the_helper_reads_the_kernels_of_a_server_without_python(
    server: Path, tmp_path: Path
) -> None:
    program, out = helper(tmp_path)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = serve(server, tmp_path, PATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "served\n", "")
    assert wait_for(out) == f"['--fd'] {EXPECTED}"


def test_the_helper_may_be_a_module_of_a_named_python(server: Path, tmp_path: Path) -> None:
    program, out = helper(tmp_path)
    done = serve(server, tmp_path, KAT_HELPER_PYTHON=str(program))
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        wait_for(out)
        == f"['-P', '-m', 'kat_otel.instrumentation.sending.helper', '--fd'] {EXPECTED}"
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"STANDIN_CUPTI_FAIL": "cuptiSubscribe=39"}, "cuptiSubscribe: CUPTI_ERROR_MULTIPLE"),
        ({"KAT_CUPTI_LIBRARY": "/nowhere/libcupti.so"}, "/nowhere/libcupti.so"),
        ({"KAT_HELPER_PYTHON": "/nowhere/python"}, "the helper does not start"),
    ],
)
def test_whatever_fails_is_one_line_and_the_server_serves(
    server: Path, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    done = serve(server, tmp_path, **environment)
    assert (done.returncode, done.stdout) == (0, "served\n")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "environment",
    [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_SDK_DISABLED": "1"}, {"KAT_MODE": "off"}],
    ids=str,
)
def test_disabled_it_does_nothing(
    server: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    program, out = helper(tmp_path)
    done = serve(server, tmp_path, KAT_HELPER_PYTHON=str(program), **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "served\n", "")
    assert not out.exists()
