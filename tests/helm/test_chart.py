"""The chart, by a real helm: it lints, renders, and what it renders is what its parts take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from scripts import helm_chart
from scripts.helm_chart import CHART, ROOT
from tests.helm.conftest import VALUES
from tests.integration.servers import binary

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
KUBERNETES = ("1.29", "1.32", "1.35")
BUILT_IN = {"v1", "apps/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1"}


def rendered(helm, values: Path, *more: str) -> list[dict[str, Any]]:
    done = helm("template", "kat", CHART, "--namespace", "kat", "--values", values, *more)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def test_what_the_chart_has_of_other_folders_is_as_it_is_there(capsys):
    assert helm_chart.main(["--check"]) == 0, (
        f"run scripts/helm_chart.py: {capsys.readouterr().out}"
    )


@pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)
def test_helm_finds_nothing_to_complain_of(helm, values):
    done = helm("lint", "--strict", CHART, "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)
def test_kubernetes_takes_it(helm, values, version):
    objects = [one for one in rendered(helm, values) if one["apiVersion"] in BUILT_IN]
    assert {one["kind"] for one in objects} >= {"StatefulSet", "Service", "ConfigMap"}
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)
def test_the_programs_take_their_files(helm, values, tmp_path):
    objects = rendered(helm, values)
    files = {
        f"{one['metadata']['name']}/{name}": text
        for one in objects
        if one["kind"] == "ConfigMap"
        for name, text in one["data"].items()
    }
    folder = tmp_path / "certificates"
    folder.mkdir()
    _certificates(folder)
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            text.replace("/etc/kat-tls", str(folder)).replace("/etc/kat-token", str(folder))
        )
    containers = [
        container
        for one in objects
        if one["kind"] == "StatefulSet"
        for container in one["spec"]["template"]["spec"]["containers"]
    ]
    for container in containers:
        if container["name"] == "kat":
            config = tmp_path / "kat-kat-otel-settings" / "kat-process.yaml"
            command = [sys.executable, "-m", "kat_otel", "validate", "--config", str(config)]
            environment = None
        else:
            configs = [one.rpartition("/")[2] for one in container["args"]]
            paths = [f"--config={tmp_path / 'kat-kat-otel-collector' / one}" for one in configs]
            command = [str(binary("otelcol-kat")), "validate", *paths]
            environment = {one["name"]: one.get("value", "pod-0") for one in container["env"]}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{container['name']}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)
def test_no_container_has_more_rights_than_it_needs(helm, values):
    sets = [one for one in rendered(helm, values) if one["kind"] == "StatefulSet"]
    assert sets
    for one in sets:
        pod = one["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_ports_that_are_named_exist(helm):
    for values in VALUES:
        objects = rendered(helm, values)
        pods = [one["spec"]["template"] for one in objects if one["kind"] == "StatefulSet"]
        for service in (one for one in objects if one["kind"] == "Service"):
            wanted = service["spec"]["selector"].items()
            (pod,) = [p for p in pods if wanted <= p["metadata"]["labels"].items()]
            names = {port["name"] for c in pod["spec"]["containers"] for port in c["ports"]}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= names, values.name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("topology=doubled", "topology"),
        ("procesor.replicas=2", "procesor"),
        ("processor.replicas=many", "replicas"),
        ("processor.config.assembler.decision_weight=5s", "decision_weight"),
        ("processor.replicas=2", "set processor.replicas to 1"),
        ("topology=kafka", "kafka.brokers"),
    ],
)
def test_bad_values_are_refused_by_name(helm, given, said):
    done = helm("template", "kat", CHART, "--set", given)
    assert done.returncode != 0
    assert said in done.stderr, done.stderr


def test_the_gpu_image_asks_for_a_gpu(helm):
    objects = rendered(helm, CHART / "ci" / "gpu-values.yaml")
    (one,) = [one for one in objects if one["kind"] == "StatefulSet"]
    pod = one["spec"]["template"]["spec"]
    kat = pod["containers"][0]
    assert kat["image"].startswith("ghcr.io/kat-otel/processor-cuda:")
    assert kat["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_every_value_is_in_the_schema_and_the_other_way_round():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = helm_chart.schema()
    assert values.keys() == schema["properties"].keys() - {"global"}
    assert (ROOT / "collector-config" / "kat-process.schema.json").is_file()


def _certificates(folder: Path) -> None:
    """A key and certificate for settings that name some, and a token."""
    (folder / "token").write_text("secret-of-the-test")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=kat", "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
        capture_output=True, check=True,
    )  # fmt: skip
    (folder / "ca.crt").write_text((folder / "tls.crt").read_text())
