"""A real helm, and what the chart renders."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.helm_chart import CHART, KUBERNETES, find_helm

Helm = Callable[..., subprocess.CompletedProcess[str]]
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))


@pytest.fixture(scope="session")
def helm() -> Helm:
    try:
        binary = find_helm()
    except subprocess.CalledProcessError:
        pytest.skip(
            "no helm, and no Go to build it with: install Go 1.26 and run scripts/make-helm"
        )

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [binary, *arguments, *KUBERNETES],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run
