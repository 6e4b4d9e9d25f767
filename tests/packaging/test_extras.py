"""Every extra can be installed on every supported Python, from wheels alone."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from tests.packaging.environments import REPOSITORY, SUPPORTED, uv

PROJECT = REPOSITORY / "pyproject.toml"
EXTRAS = tuple(tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"])
MACHINES = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")


def resolved(*arguments: str | Path) -> str:
    """The versions that the index gives; nothing is downloaded but metadata."""
    plain = ("--quiet", "--no-header", "--no-annotate", "--python", sys.executable)
    done = uv("pip", "compile", *plain, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("extra", EXTRAS)
def test_the_newest_versions_fit_together(extra: str, version: str) -> None:
    for machine in MACHINES:
        on = ("--python-version", version, "--python-platform", machine)
        found = resolved(*on, "--only-binary", ":all:", "--extra", extra, PROJECT)
        assert "\nopentelemetry-sdk==" in found  # the worker's, whatever the extra


@pytest.mark.slow
@pytest.mark.parametrize("version", SUPPORTED)
def test_all_that_a_server_may_want_fits_together(version: str) -> None:
    extras = [word for extra in ("processor", "analyzer", "cuda13") for word in ("--extra", extra)]
    found = resolved("--python-version", version, "--only-binary", ":all:", *extras, PROJECT)
    assert "\ncupy-cuda13x==" in found
    assert "\nopenai==" in found
