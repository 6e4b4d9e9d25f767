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


@pytest.fixture(scope="session")
def notes(rendered: Rendered, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """What ``helm install`` would print: ``helm template`` leaves it out."""
    chart = tmp_path_factory.mktemp("notes") / "kat-otel"
    shutil.copytree(CHART, chart)
    text = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "_notes.tpl").write_text(f'{{{{ define "notes" }}}}{text}{{{{ end }}}}')
    (chart / "templates" / "notes.yaml").write_text(
        'kind: Notes\nmetadata: {name: notes}\ntext: |\n  {{- include "notes" . | nindent 2 }}\n'
    )

    def read(name: str, *more: str) -> str:
        (one,) = of_kind(rendered(name, *more, chart=chart), "Notes")
        return one["text"]

    return read


@pytest.fixture
def chart_with(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """The chart with one more file of the dashboards or rules; returns where it is."""
    chart = tmp_path / "kat-otel"
    shutil.copytree(CHART, chart)

    def add(kind: str, name: str, text: str) -> Path:
        folder = chart / "files" / kind
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        return chart

    return add


def of_kind(objects: Objects, *kinds: str) -> Objects:
    """Those of some kinds."""
    return [one for one in objects if one["kind"] in kinds]


def pods_of(objects: Objects) -> Objects:
    """The templates of all pods."""
    return [one["spec"]["template"] for one in of_kind(objects, "StatefulSet", "DaemonSet")]


def containers_of(pod: dict[str, Any]) -> Objects:
    """All containers of a pod, sidecars too."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def patch_of(objects: Objects) -> dict[str, Any]:
    """The pod's spec of the patch for servers."""
    (workers,) = [one for one in objects if one["metadata"]["name"] == "kat-kat-otel-workers"]
    return yaml.safe_load(workers["data"]["patch.yaml"])["spec"]["template"]["spec"]


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    """A container's variables; "" for those that come from elsewhere."""
    return {one["name"]: one.get("value", "") for one in container["env"]}


def file_of(objects: Objects, name: str) -> dict[str, Any]:
    """A collector's file."""
    (files,) = [one for one in objects if one["metadata"]["name"] == "kat-kat-otel-collector"]
    return yaml.safe_load(files["data"][name])


def kat_of(objects: Objects) -> dict[str, Any]:
    """The settings of `kat process`."""
    (files,) = [one for one in objects if one["metadata"]["name"] == "kat-kat-otel-settings"]
    return yaml.safe_load(files["data"]["kat-process.yaml"])
