"""The images as they are written: pinned, without root, of the versions that are tested."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kat_otel.processor.config_file import load_config
from kat_otel.processor.defaults import with_defaults

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = REPOSITORY / "images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text()
STAGES = {
    block.split(" AS ")[1].split()[0]: block
    for block in re.split(r"(?m)^(?=FROM )", DOCKERFILE)
    if block.startswith("FROM ")
}
PUBLISHED = ("processor", "worker-init", "processor-cuda")
PIN = re.compile(r"(?m)^([\w.-]+)==([^\s\\]+)")


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint not installed: make test")
    done = subprocess.run(
        [hadolint, str(IMAGES / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_base_is_pinned_by_a_digest_or_cannot_be_built() -> None:
    own = set(STAGES)
    for name, block in STAGES.items():
        base = block.split()[1]
        assert base in own or re.fullmatch(r"\$\{(\w+)_IMAGE\}@\$\{\1_DIGEST\}", base), name
    digests = re.findall(r"(?m)^ARG \w+_DIGEST=(.*)$", DOCKERFILE)
    assert len(digests) == 3
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in digests)


def test_published_images_run_as_the_charts_user() -> None:
    chart = (REPOSITORY / "helm/kat-otel/templates/_helpers.tpl").read_text()
    user = re.search(r"runAsUser: (\d+)", chart)
    assert user is not None
    for name in ("processor", "worker-init"):
        assert f"USER {user[1]}:{user[1]}\n" in STAGES[name]
    assert STAGES["processor-cuda"].startswith("FROM processor AS")  # and inherits it
    assert "USER" not in STAGES["processor-cuda"]


def test_the_ports_of_the_settings_are_those_that_are_exposed() -> None:
    config, _ = with_defaults(load_config(IMAGES / "kat-process.yaml"))
    ports = (
        config.receiver,
        config.receiver.http,
        config.control,
        config.prometheus,
        config.health,
    )
    open_to_others = [port.endpoint.removeprefix("0.0.0.0:") for port in ports if port.endpoint]
    assert re.search(rf"(?m)^EXPOSE {' '.join(open_to_others)}$", STAGES["processor"])
    assert config.wal.directory is not None
    assert str(config.wal.directory).startswith("/var/lib/kat-otel/")


def test_the_version_of_the_images_is_that_of_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"(?m)^ARG VERSION=(.*)$", DOCKERFILE)) == {project["version"]}
    chart = (REPOSITORY / "helm/kat-otel/Chart.yaml").read_text()
    assert f'appVersion: "{project["version"]}"' in chart  # what the chart's images are tagged with


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_images_say_what_they_are(name: str) -> None:
    assert "org.opencontainers.image.title=" in STAGES[name]


def test_what_is_copied_into_a_build_is_not_ignored() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    for words in re.findall(r"(?m)^COPY (?!--from)(.*)$", DOCKERFILE):
        for source in words.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
            assert source.split("/")[0] in kept, source


@pytest.mark.parametrize("name", ["build", "processor", "processor-cuda", "worker"])
def test_images_have_the_versions_that_ci_tests(name: str) -> None:
    tested = set(PIN.findall((REPOSITORY / "requirements/ci.txt").read_text()))
    names = {package for package, _ in tested}
    text = (IMAGES / "requirements" / f"{name}.txt").read_text()
    pins = PIN.findall(text)
    assert pins
    assert [pin for pin in pins if pin[0] in names and pin not in tested] == [], (
        "images/pin-packages"
    )
    assert "://" not in text
    assert text.count("--hash=sha256:") >= len(pins)


def test_the_workers_tree_leaves_numpy_to_the_server() -> None:
    pins = dict(PIN.findall((IMAGES / "requirements/worker.txt").read_text()))
    assert "numpy" not in pins
    assert {"opentelemetry-sdk", "wrapt", "urllib3"} <= set(pins)
