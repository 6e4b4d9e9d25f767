"""Puts into the chart what stands elsewhere in the repository: ``scripts/helm_chart.py [--check]``.

The collector's files, the dashboards and rules, the schema of the settings, the version and what
the chart renders for every file of ``ci/``: each has one source; ``--check`` says what lags behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from kat_otel.processor.config_schema import config_schema

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "kat-otel"
KUBERNETES = ("--kube-version", "1.32.0")  # a helm built as a module names an old one
TIERS = ("gateway", "backend", "load-balancing", "kafka-producer", "kafka-consumer")


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


def schema() -> dict[str, Any]:
    """Returns the JSON Schema of values.yaml; that of processor.config is the settings' own."""
    settings = config_schema()
    definitions = settings.pop("$defs")
    for unused in ("$schema", "$id"):
        settings.pop(unused)
    text, flag, count = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 1}
    free, anything = {"type": "object"}, {"type": "array"}
    texts = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}

    def closed(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": False, "properties": properties}

    size = {"type": "string", "pattern": "^[0-9]+(Mi|Gi|Ti)$"}
    image = closed(
        repository=text, tag=text, pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]}
    )
    storage = closed(size=size, storageClassName=text)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart kat-otel",
        **closed(
            topology={"enum": ["single", "loadBalanced", "kafka"]},
            image=image,
            imagePullSecrets=anything,
            processor=closed(
                replicas=count,
                config={"$ref": "#/$defs/kat"},
                resources=free,
                storage=storage,
                sharedState=closed(existingClaim=text),
                extraEnv=anything,
            ),
            gpu=closed(enabled=flag, resourceName=text, nodeSelector=texts, tolerations=anything),
            collector=closed(
                image=image,
                replicas=count,
                config=free,
                backendConfig=free,
                env=texts,
                resources=free,
                storage=storage,
            ),
            kafka=closed(brokers={"type": "array", "items": text}),
            tls=closed(secretName=text),
            control=closed(tokenSecret=closed(name=text, key=text)),
            service=closed(
                type={"enum": ["ClusterIP", "LoadBalancer", "NodePort"]}, annotations=texts
            ),
            podDisruptionBudget=closed(
                enabled=flag, maxUnavailable={"type": ["integer", "string"]}
            ),
            networkPolicy=closed(**{"enabled": flag, "from": anything}),
            autoscaling=closed(
                enabled=flag, minReplicas=count, maxReplicas=count, pendingSpans=count
            ),
            serviceMonitor=closed(enabled=flag, interval=text, labels=texts),
            prometheusRule=closed(enabled=flag, labels=texts),
            dashboards=closed(enabled=flag, label=text, labelValue=text, annotations=texts),
            instrumentation=closed(enabled=flag, image=text),
            serviceAccount=closed(create=flag, name=text, annotations=texts),
            podAnnotations=texts,
            podLabels=texts,
            nodeSelector=texts,
            tolerations=anything,
            affinity=free,
            topologySpreadConstraints=anything,
            priorityClassName=text,
            terminationGracePeriodSeconds=count,
            **{"global": free},
        ),
        "$defs": {"kat": settings, **definitions},
    }


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
        # Copied files are held to their sources already, and the dashboards are long.
        yield CHART / "examples" / f"{values.name.removesuffix('-values.yaml')}.yaml", done.stdout


def find_helm() -> Path:
    """Returns the helm that ``scripts/make-helm`` built, or builds it."""
    given = os.environ.get("KAT_HELM")
    if given:
        return Path(given)
    done = subprocess.run(
        [ROOT / "scripts" / "make-helm"], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(done.stdout.strip())


def main(arguments: list[str]) -> int:
    """Writes what lags behind, or only says so."""
    check = arguments == ["--check"]
    stale: list[Path] = []
    made = dict(copies())
    version = f'appVersion: "{version_of("kat-otel")}"'
    if version not in (CHART / "Chart.yaml").read_text():
        sys.stderr.write(f"helm/kat-otel/Chart.yaml: wants {version}\n")
        return 1
    stale += [file for file, text in made.items() if not _reads(file, text, check=check)]
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
