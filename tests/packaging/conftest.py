"""The archives of this tree, built once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.environments import REPOSITORY

NO_COMPILER = "/no/such/compiler"


def build(source: Path, folder: Path, *kinds: str, compiler: str | None = None) -> Path:
    """The one file that ``python -m build`` makes of ``source`` in ``folder``."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, *kinds, source],
        capture_output=True,
        text=True,
        env={**os.environ, **({"CC": compiler} if compiler else {})},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, with the shim where there is a C compiler."""
    return build(REPOSITORY, tmp_path_factory.mktemp("wheel"), "--wheel")


@pytest.fixture(scope="session")
def pure_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree as a machine without a compiler makes it."""
    return build(REPOSITORY, tmp_path_factory.mktemp("pure"), "--wheel", compiler=NO_COMPILER)
