"""Puts into the chart what stands elsewhere: ``python -m scripts.helm_chart [--check]``.

The collector's files, the dashboards and rules, the schema of the settings, the version, the
README's table of values and what the chart renders for every file of ``ci/``: each has one source;
``--check`` says what lags behind.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path

import yaml

from scripts.helm_schema import schema

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "kat-otel"
DASHBOARD = re.compile(r"  \S+\.json: \|\n")
KUBERNETES = ("--kube-version", "1.32.0")  # a helm built as a module names an old one
TIERS = (
    *("gateway", "backend", "load-balancing", "kafka-producer", "kafka-consumer"),
    *("agent", "agent-dcgm"),
)


def copies() -> Iterator[tuple[Path, str]]:
    """Yields what the chart has of other folders: file and text."""
    for tier in TIERS:
        file = ROOT / "collector-config" / f"{tier}.yaml"
        yield CHART / "files" / "collector" / file.name, file.read_text()
    for kind, folder, form in (
        ("dashboards", "grafana/dashboards", "*.json"),
        ("rules", "prometheus/rules", "*.yaml"),
    ):
        for file in sorted((ROOT / "collector-config" / folder).glob(form)):
            yield CHART / "files" / kind / file.name, file.read_text()
    yield CHART / "values.schema.json", json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def lagging() -> Iterator[str]:
    """Yields the lines that Chart.yaml should have: its version, and the images it names."""
    said = (CHART / "Chart.yaml").read_text()
    version = version_of("kat-otel")
    collector = yaml.safe_load((CHART / "values.yaml").read_text())["collector"]["image"]
    wanted = [f'appVersion: "{version}"']
    own = ("processor", "processor-cuda", "worker-init")
    wanted += [f"image: ghcr.io/kat-otel/{name}:{version}" for name in own]
    wanted.append(f"image: {collector['repository']}:{collector['tag']}")
    yield from (line for line in wanted if f"{line}\n" not in said)


def examples(helm: Path) -> Iterator[tuple[Path, str]]:
    """Yields what the chart renders for each file of ``ci/``.

    Raises:
        RuntimeError: helm refuses one of them.
    """
    for values in sorted((CHART / "ci").glob("*-values.yaml")):
        done = subprocess.run(
            [helm, "template", "kat", CHART, *KUBERNETES, "--namespace", "kat", "--values", values],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{values.name}: {done.stderr}")
        name = f"{values.name.removesuffix('-values.yaml')}.yaml"
        yield CHART / "examples" / name, _without_dashboards(done.stdout)


def _without_dashboards(rendered: str) -> str:
    """Leaves out what dashboards say: the copies are held to their sources, and these are long."""
    lines = rendered.splitlines(keepends=True)
    kept: list[str] = []
    inside = False
    for line in lines:
        inside = inside and (line.startswith("    ") or not line.strip())
        if not inside:
            kept.append(line)
        if DASHBOARD.fullmatch(line):
            inside = True
            kept.append("    (left out of this example)\n")
    return "".join(kept)


def readme(helm_docs: Path) -> str:
    """Returns the chart's README: README.md.gotmpl with the table of the values and their comments.

    Raises:
        RuntimeError: a value has no comment where one is wanted, or the template is wrong.
    """
    done = subprocess.run(
        [helm_docs, "--chart-search-root", CHART, "--dry-run", "--sort-values-order", "file"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"helm-docs: {done.stderr}")
    return done.stdout.strip() + "\n"


def find_helm(program: str = "helm") -> Path:
    """Returns the helm or helm-docs that ``scripts/make-helm`` built, or builds it.

    Raises:
        CalledProcessError: it cannot be built, which standard error explains.
    """
    done = subprocess.run(
        [ROOT / "scripts" / "make-helm", program], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(done.stdout.strip())


def main(arguments: list[str]) -> int:
    """Writes what lags behind, or only says so."""
    check = arguments == ["--check"]
    stale: list[Path] = []
    made = dict(copies())
    if wrong := list(lagging()):
        sys.stderr.writelines(f"helm/kat-otel/Chart.yaml: wants {line}\n" for line in wrong)
        return 1
    stale += [file for file, text in made.items() if not _reads(file, text, check=check)]
    made[CHART / "README.md"] = readme(find_helm("helm-docs"))
    made |= dict(examples(find_helm()))
    stale += [file for file, text in made.items() if not _reads(file, text, check=check)]
    for folder in ("files", "examples"):
        for file in (CHART / folder).rglob("*.*"):
            if file not in made:
                stale.append(file)
                if not check:
                    file.unlink()
    for file in dict.fromkeys(stale):
        sys.stdout.write(f"{'stale' if check else 'written'}: {file.relative_to(ROOT)}\n")
    return 1 if check and stale else 0


def _reads(file: Path, text: str, *, check: bool) -> bool:
    if file.is_file() and file.read_text() == text:
        return True
    if not check:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
