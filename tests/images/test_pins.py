"""Both ways of pinning: base images by digest, Python packages by hash."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.environments import REPOSITORY

IMAGES = REPOSITORY / "images"
PIN = re.compile(r"(?m)^([\w.-]+==[^\\\n]+?) *\\?$")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the images' folder, with a registry's client that says what it is told to."""
    folder = tmp_path / "images"
    shutil.copytree(IMAGES, folder)
    (tmp_path / "bin").mkdir()
    return folder


def pin_bases(folder: Path, skopeo: str) -> subprocess.CompletedProcess[str]:
    client = folder.parent / "bin" / "skopeo"
    client.write_text(f"#!/bin/sh\n{skopeo}\n")
    client.chmod(0o755)
    path = f"{client.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [folder / "pin-bases"],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        check=False,
    )


def test_base_images_are_pinned_by_the_digest_of_their_manifest(copy: Path) -> None:
    done = pin_bases(copy, 'printf "manifest of %s" "$3"')
    assert done.returncode == 0, done.stderr
    text = (copy / "Dockerfile").read_text()
    for base in ("BUILD", "PYTHON", "COPY"):
        image = re.search(rf"(?m)^ARG {base}_IMAGE=(.*)$", text)
        assert image is not None
        sent = f"manifest of docker://{image[1]}".encode()
        assert f"ARG {base}_DIGEST=sha256:{hashlib.sha256(sent).hexdigest()}\n" in text


def test_a_registry_that_does_not_answer_leaves_the_file_as_it_was(copy: Path) -> None:
    done = pin_bases(copy, "echo unauthorized >&2; exit 1")
    assert done.returncode != 0
    assert "unauthorized" in done.stderr
    assert (copy / "Dockerfile").read_text() == (IMAGES / "Dockerfile").read_text()


@pytest.mark.slow
def test_packages_are_pinned_as_pyproject_asks_for_them(copy: Path) -> None:
    """Names, versions and markers; the hashes of a version grow when wheels are added to it."""
    into = copy / "requirements"
    done = subprocess.run(
        [IMAGES / "pin-packages", into], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for file in (IMAGES / "requirements").iterdir():
        pins = PIN.findall(file.read_text())
        assert pins
        assert PIN.findall((into / file.name).read_text()) == pins, "images/pin-packages"
