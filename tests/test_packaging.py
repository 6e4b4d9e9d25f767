"""What a user installs: a light worker side, commands behind an extra, all files in the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
VERSIONS = REPOSITORY / "requirements" / "ci.txt"
SUPPORTED = ("3.11", "3.12", "3.13")

WORKER_MODULES = "errors, identity, kernels, semconv, spans"
WORKER_PACKAGES = {"numpy", "opentelemetry"}


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=Path.home(),  # not the repository: what is imported must be what was installed
        env={**os.environ, **environment},
        check=False,
    )


def interpreters() -> dict[str, str]:
    """Every supported Python on this machine; a name on the PATH may be a shim that won't run."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    for version in SUPPORTED:
        named = [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python3")]
        for candidate in filter(None, named):
            if run(candidate, "-c", "import ensurepip, venv").returncode == 0:
                found.setdefault(version, str(candidate))
    return found


INTERPRETERS = interpreters()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(build, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.glob("*.whl")
    return made


def environment(folder: Path, interpreter: str, requirement: str) -> Path:
    """A fresh environment with ``requirement`` installed; returns its folder of programs."""
    if interpreter == sys.executable:
        venv.create(folder, with_pip=True)
    else:
        assert run(interpreter, "-m", "venv", folder).returncode == 0
    programs = folder / "bin"
    pip = (programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    done = run(*pip, "--constraint", VERSIONS, requirement)
    assert done.returncode == 0, done.stderr
    return programs


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "kat_otel"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "kat_otel/spans.py" in tracked
    assert set(tracked) <= set(zipfile.ZipFile(wheel).namelist())


def test_what_a_worker_imports_needs_numpy_and_the_otel_api_alone() -> None:
    show = (
        f"import sys; before = set(sys.modules); from kat_otel import {WORKER_MODULES};"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before"
        " if 'site-packages' in (getattr(sys.modules[name], '__file__', None) or '')})"
    )
    done = run(sys.executable, "-c", show, PYTHONPATH=str(REPOSITORY))
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= WORKER_PACKAGES


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
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", INTERPRETERS)
def test_the_wheel_works_on_every_supported_python(
    wheel: Path, traces: Path, tmp_path: Path, version: str
) -> None:
    programs = environment(
        tmp_path / "venv", INTERPRETERS[version], f"kat-otel[processor] @ {wheel.as_uri()}"
    )
    done = run(programs / "kat", "analyze", traces / "dlrm_8rank")
    assert done.returncode == 0, done.stderr
    assert "rank 7" in done.stdout
