"""The first minutes of a user who has pip, a wheel and no compiler."""

from __future__ import annotations

import shutil
import venv
from pathlib import Path

import pytest

from tests.packaging.environments import REPOSITORY, VERSIONS, run


def take_compiled_loops(programs: Path) -> None:
    """Gives an environment what this very source was compiled to before: a minute less.

    Numba takes it for the same source alone. Where the tests' own tree was never warm the
    environment compiles, as a user's does.
    """
    (package,) = programs.parent.glob("lib/python*/site-packages/kat_otel")
    for made in REPOSITORY.glob("kat_otel/**/__pycache__/*.nb[ic]"):
        target = package / made.relative_to(REPOSITORY / "kat_otel")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(made, target)


@pytest.fixture(scope="module")
def programs(pure_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``pip install`` of the wheel makes of an empty environment."""
    folder = tmp_path_factory.mktemp("user") / "venv"
    venv.create(folder, with_pip=True)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:")
    done = run(*pip, "--constraint", VERSIONS, f"kat-otel[processor] @ {pure_wheel.as_uri()}")
    assert done.returncode == 0, done.stderr
    take_compiled_loops(folder / "bin")
    return folder / "bin"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_wheel_in_a_clean_environment_runs_the_demonstration_without_a_compiler(
    programs: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    alone = {"PATH": str(programs), "CC": "/no/such/compiler"}
    done = run(programs / "kat", "demo", "--seed", "7", "--html", page, **alone)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Named rightly" in done.stdout
    assert "INCIDENT in step" in done.stdout
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.slow
def test_without_the_shim_a_worker_is_told_how_to_get_it(programs: Path) -> None:
    done = run(programs / "kat", "doctor", "--worker", PATH=str(programs))
    assert done.stderr == ""
    (line,) = [line for line in done.stdout.splitlines() if "capture library" in line]
    assert line.startswith("fail")
    assert "install a C compiler" in line
