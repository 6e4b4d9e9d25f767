"""What a user installs: a light worker side, commands behind an extra, all files in the wheel."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.packaging.environments import REPOSITORY, VERSIONS, environment, interpreters, run

WORKER_MODULES = "errors, identity, kernels, semconv, spans"
WORKER_DEPENDENCIES = {
    "numpy",
    "nvidia-ml-py",
    "opentelemetry-api",
    "opentelemetry-instrumentation",
    "opentelemetry-sdk",
    "urllib3",
    "wrapt",
}
COMPILED = {"numpy", "wrapt"}
LOAD_SHIM = (
    "import ctypes; from kat_otel.instrumentation.capture.library import PATH;"
    "ctypes.CDLL(str(PATH)); print(PATH)"
)


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "kat_otel"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "kat_otel/spans.py" in tracked
    assert set(tracked) <= set(zipfile.ZipFile(wheel).namelist())


def test_the_worker_requires_these_and_numpy_and_wrapt_alone_are_compiled() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = {line.partition(">=")[0] for line in project["dependencies"]}
    assert named == WORKER_DEPENDENCIES
    files = {name: distribution(name).files or [] for name in named}
    assert all(files.values())
    assert {name for name in named if any(f.suffix == ".so" for f in files[name])} == COMPILED


def test_the_versions_of_ci_name_no_place_to_fetch_from() -> None:
    text = VERSIONS.read_text()
    assert "numpy==" in text
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]


@pytest.mark.slow
def test_kat_on_a_worker_install_names_the_extra_that_holds_the_commands(
    wheel: Path, tmp_path: Path
) -> None:
    programs = environment(tmp_path / "venv", sys.executable, str(wheel))
    done = run(programs / "python", "-c", f"from kat_otel import {WORKER_MODULES}")
    assert done.returncode == 0, done.stderr
    done = run(programs / "kat", "analyze", "trace.json")
    assert done.returncode == 2
    assert "pip install 'kat-otel[processor]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", interpreters())
def test_the_wheel_works_on_every_supported_python(
    wheel: Path, traces: Path, tmp_path: Path, version: str
) -> None:
    wanted = f"kat-otel[processor] @ {wheel.as_uri()}"
    programs = environment(tmp_path / "venv", interpreters()[version], wanted)
    done = run(programs / "python", "-c", LOAD_SHIM)
    assert str(tmp_path) in done.stdout, done.stderr
    # The decoder is compiled here; all loops are where `kat demo` runs from a wheel.
    done = run(programs / "python", "-m", "kat_otel.otlp.warm")
    assert done.returncode == 0, done.stderr
    analyze = (programs / "kat", "analyze", traces / "dlrm_8rank")
    done = run(*analyze, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr
    assert "ranks 4-5" in done.stdout
