"""A real helm, and what the chart renders."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.helm_chart import CHART, KUBERNETES, find_helm

Helm = Callable[..., subprocess.CompletedProcess[str]]
Objects = list[dict[str, Any]]
Rendered = Callable[..., Objects]
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))


def built(program: str) -> Path:
    """The path of helm or helm-docs, which is built if need be."""
    try:
        return find_helm(program)
    except subprocess.CalledProcessError:
        if shutil.which("go"):
            raise  # that it cannot be built is no reason to look away
        pytest.skip(f"no {program}, and no Go to build it: apt-get install golang, 1.26 or newer")


@pytest.fixture(scope="session")
def helm() -> Helm:
    binary = built("helm")

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary, *arguments, *KUBERNETES],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture(scope="session")
def helm_docs() -> Path:
    return built("helm-docs")


@pytest.fixture(scope="session")
def rendered(helm: Helm) -> Rendered:
    """What a file of ``ci/`` renders to, and with which ``--set`` beside it."""

    def render(name: str | Path, *more: str, chart: Path = CHART) -> Objects:
        values = CHART / "ci" / f"{name}-values.yaml" if isinstance(name, str) else name
        done = helm("template", "kat", chart, "--namespace", "kat", "--values", values, *more)
        assert done.returncode == 0, done.stderr
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    return render


def of_kind(objects: Objects, *kinds: str) -> Objects:
    """Those of some kinds."""
    return [one for one in objects if one["kind"] in kinds]


def pods_of(objects: Objects) -> Objects:
    """The templates of all pods."""
    return [one["spec"]["template"] for one in of_kind(objects, "StatefulSet", "DaemonSet")]


def containers_of(pod: dict[str, Any]) -> Objects:
    """All containers of a pod, sidecars too."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
