"""What a release consists of: tags that say what is in a wheel, an archive that makes the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHIM = "kat_otel/instrumentation/native/libkat_capture.so"


def build(source: Path, folder: Path, *kinds: str, compiler: str) -> Path:
    """The one file that ``python -m build`` makes of ``source`` in ``folder``."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, *kinds, source],
        capture_output=True,
        text=True,
        env={**os.environ, "CC": compiler},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.iterdir()
    return made


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_pure_and_says_so(tmp_path: Path) -> None:
    made = build(REPOSITORY, tmp_path / "pure", "--wheel", compiler="/no/such/compiler")
    assert made.name.endswith("-py3-none-any.whl")
    assert SHIM not in zipfile.ZipFile(made).namelist()


@pytest.mark.slow
def test_the_source_archive_makes_the_same_wheel_with_the_shim_in_it(tmp_path: Path) -> None:
    straight = build(REPOSITORY, tmp_path / "straight", "--wheel", compiler="gcc")
    assert re.search(r"-py3-none-linux_\w+\.whl$", straight.name)
    archive = build(REPOSITORY, tmp_path / "archive", "--sdist", compiler="gcc")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    source = tmp_path / archive.name.removesuffix(".tar.gz")
    again = build(source, tmp_path / "again", "--wheel", compiler="gcc")
    assert again.name == straight.name
    names = set(zipfile.ZipFile(straight).namelist())
    assert SHIM in names
    assert set(zipfile.ZipFile(again).namelist()) == names


def test_one_wheel_an_architecture_is_built_for_manylinux() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    architectures = {name.rpartition("manylinux_")[2] for name in settings["build"]}
    assert architectures == {"x86_64", "aarch64"}
    assert len(settings["build"]) == 2
    for architecture in architectures:
        assert settings[f"manylinux-{architecture}-image"] == "manylinux_2_28"
