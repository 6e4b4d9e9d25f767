"""What a release consists of: tags that say what is in a wheel, an archive that makes the same."""

from __future__ import annotations

import re
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import build
from tests.packaging.environments import REPOSITORY, run

SHIM = "kat_otel/instrumentation/native/libkat_capture.so"


def test_without_a_compiler_the_wheel_is_pure_and_says_so(pure_wheel: Path) -> None:
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    assert SHIM not in zipfile.ZipFile(pure_wheel).namelist()


@pytest.mark.slow
def test_the_source_archive_makes_the_same_wheel_with_the_shim_in_it(
    wheel: Path, tmp_path: Path
) -> None:
    assert re.search(r"-py3-none-linux_\w+\.whl$", wheel.name)
    archive = build(REPOSITORY, tmp_path / "archive", "--sdist")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    source = tmp_path / archive.name.removesuffix(".tar.gz")
    again = build(source, tmp_path / "again", "--wheel")
    assert again.name == wheel.name
    names = set(zipfile.ZipFile(wheel).namelist())
    assert SHIM in names
    assert set(zipfile.ZipFile(again).namelist()) == names


def test_cibuildwheel_makes_one_wheel_an_architecture_and_no_other() -> None:
    cibuildwheel = Path(sysconfig.get_path("scripts"), "cibuildwheel")
    show = ("--platform", "linux", "--archs", "all", "--print-build-identifiers")
    done = run(sys.executable, cibuildwheel, *show, REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cp313-manylinux_x86_64", "cp313-manylinux_aarch64"]
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    for architecture in ("x86_64", "aarch64"):
        # glibc 2.28, so that the shim loads wherever an inference server of today runs
        assert settings[f"manylinux-{architecture}-image"] == "manylinux_2_28"


@pytest.mark.slow
def test_what_cibuildwheel_asks_of_a_wheel_holds_for_this_one(wheel: Path) -> None:
    """Its ``test-command``, in this environment: the shim is there and loads."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    done = run("sh", "-c", settings["test-command"].replace("python", sys.executable, 1))
    assert done.returncode == 0, done.stderr
