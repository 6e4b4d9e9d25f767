"""Fresh environments on every supported Python of this machine, and what runs in them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
VERSIONS = REPOSITORY / "requirements" / "ci.txt"
SUPPORTED = ("3.11", "3.12", "3.13")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command outside the repository: what is imported must be what was installed."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=Path.home(),
        env={**os.environ, **environment},
        check=False,
    )


@functools.cache
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


def uv(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the pinned uv with the index that pip was given; it must not fetch a Python for us."""
    environment = {"UV_PYTHON_DOWNLOADS": "never"}
    if index := os.environ.get("PIP_INDEX_URL"):
        environment["UV_DEFAULT_INDEX"] = index
    return run(Path(sysconfig.get_path("scripts"), "uv"), *arguments, **environment)


def environment(folder: Path, interpreter: str, *requirements: str) -> Path:
    """A fresh environment with ``requirements`` in it; returns its folder of programs."""
    done = uv("venv", "--quiet", "--python", interpreter, folder)
    assert done.returncode == 0, done.stderr
    into = ("--python", folder / "bin" / "python", "--constraint", VERSIONS)
    done = uv("pip", "install", "--quiet", *into, *requirements)
    assert done.returncode == 0, done.stderr
    return folder / "bin"
