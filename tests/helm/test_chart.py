"""The chart, by a real helm: it lints, renders, and what it renders is what its parts take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from scripts import helm_chart
from scripts.helm_chart import CHART, ROOT
from scripts.helm_schema import schema
from tests.helm.conftest import VALUES, containers_of, of_kind, pods_of
from tests.integration.servers import binary

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
KUBERNETES = ("1.30", "1.33", "1.36")
BUILT_IN = {"v1", "apps/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1"}
BY_NAME = pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)


@pytest.mark.usefixtures("helm", "helm_docs")
def test_what_the_chart_has_of_other_places_is_as_it_is_there(capsys):
    assert helm_chart.main(["--check"]) == 0, (
        f"run python -m scripts.helm_chart: {capsys.readouterr().out}"
    )


@BY_NAME
def test_helm_finds_nothing_to_complain_of(helm, values):
    done = helm("lint", "--strict", CHART, "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", KUBERNETES)
@BY_NAME
def test_kubernetes_takes_it(rendered, values, version):
    objects = [one for one in rendered(values) if one["apiVersion"] in BUILT_IN]
    assert {one["kind"] for one in objects} >= {"StatefulSet", "Service", "ConfigMap"}
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)


@BY_NAME
def test_the_programs_take_their_files(rendered, values, tmp_path):
    objects = rendered(values)
    files = {
        f"{one['metadata']['name']}/{name}": text
        for one in of_kind(objects, "ConfigMap")
        for name, text in one["data"].items()
    }
    folder = tmp_path / "certificates"
    folder.mkdir()
    _certificates(folder)
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            text.replace("/etc/kat-tls", str(folder))
            .replace("/etc/kat-token", str(folder))
            .replace("/hostfs", "/")
        )
    for container in [one for pod in pods_of(objects) for one in containers_of(pod)]:
        if container["name"] == "kat":
            config = tmp_path / "kat-kat-otel-settings" / "kat-process.yaml"
            command = [sys.executable, "-m", "kat_otel", "validate", "--config", str(config)]
            environment = None
        else:
            configs = [one.rpartition("/")[2] for one in container["args"]]
            paths = [f"--config={tmp_path / 'kat-kat-otel-collector' / one}" for one in configs]
            command = [binary("otelcol-kat"), "validate", *paths]
            environment = {one["name"]: one.get("value", "pod-0") for one in container["env"]}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{container['name']}: {done.stdout}{done.stderr}"


@BY_NAME
def test_no_container_has_more_rights_than_it_needs(rendered, values):
    pods = pods_of(rendered(values))
    assert pods
    for pod in pods:
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers_of(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }
            host = {one["name"] for one in spec["volumes"] if "hostPath" in one}
            mounts = [one for one in container["volumeMounts"] if one["name"] in host]
            assert all(one["readOnly"] for one in mounts)


@BY_NAME
def test_ports_that_are_named_exist(rendered, values):
    objects = rendered(values)
    for service in of_kind(objects, "Service"):
        wanted = service["spec"]["selector"].items()
        (pod,) = [p for p in pods_of(objects) if wanted <= p["metadata"]["labels"].items()]
        names = {port["name"] for c in containers_of(pod) for port in c["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("topology=doubled", "topology"),
        ("procesor.replicas=2", "procesor"),
        ("processor.replicas=many", "replicas"),
        ("processor.config.assembler.decision_weight=5s", "decision_weight"),
        ("processor.replicas=2", "set processor.replicas to 1"),
        ("topology=kafka", "kafka.brokers"),
        ("auth.tokenSecret.name=t", "set tls.secretName"),
        ("auth.tokenSecret.name=t,tls.secretName=s,workers.operator=true", "workers.secretName"),
        ("terminationGracePeriodSeconds=20", "at least 40"),
        (
            "topology=kafka,kafka.brokers={b:9092},autoscaling.enabled=true,autoscaling.minReplicas=9",
            "autoscaling.minReplicas (9) is more than autoscaling.maxReplicas (8)",
        ),
        ("collector.extraEnv=KAFKA_PASSWORD", "extraEnv"),
    ],
)
def test_bad_values_are_refused_by_name(helm, given, said):
    done = helm("template", "kat", CHART, "--set", given)
    assert done.returncode != 0
    assert said in done.stderr, done.stderr


def test_the_gpu_image_asks_for_a_gpu(rendered):
    (pod,) = pods_of(rendered("gpu"))
    kat = next(one for one in pod["spec"]["containers"] if one["name"] == "kat")
    assert kat["image"].startswith("ghcr.io/kat-otel/processor-cuda:")
    assert kat["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["spec"]["runtimeClassName"] == "nvidia"


def test_code_that_an_image_holds_compiled_is_not_passed_over(rendered):
    """NUMBA_CACHE_DIR would be: kat_otel.compiled then asks that folder and no other."""
    (pod,) = pods_of(rendered("default"))
    (kat,) = pod["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in kat["env"]}
    assert "NUMBA_CACHE_DIR" not in environment
    log = next(one["mountPath"] for one in kat["volumeMounts"] if one["name"] == "log")
    assert environment["XDG_CACHE_HOME"].startswith(f"{log}/")


def test_dashboards_and_rules_leave_with_the_labels_that_are_looked_for(rendered, chart_with):
    dashboard = {"uid": "kat-test", "title": "Fleet", "panels": [{"legend": "{{rank}} {{- x }}"}]}
    alert = {"alert": "KatTest", "expr": "up == 0", "annotations": {"summary": "{{ $labels.x }}"}}
    rules = {"groups": [{"name": "kat-test", "rules": [alert]}]}
    chart_with("dashboards", "test.json", json.dumps(dashboard, indent=2))
    chart = chart_with("rules", "test-alerts.yaml", yaml.safe_dump(rules))
    objects = {
        (one["kind"], one["metadata"]["name"]): one
        for one in rendered("load-balanced", "--set", "rules.enabled=true", chart=chart)
    }
    shown = objects["ConfigMap", "kat-kat-otel-test"]
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(shown["data"]["test.json"]) == dashboard
    assert objects["PrometheusRule", "kat-kat-otel-test-alerts"]["spec"] == rules
    gathered = objects["ConfigMap", "kat-kat-otel-test-alerts"]
    assert gathered["metadata"]["labels"]["prometheus_rules"] == "1"
    assert yaml.safe_load(gathered["data"]["test-alerts.yaml"]) == rules


def test_every_dashboard_fits_into_a_config_map(rendered):
    for one in of_kind(rendered("load-balanced"), "ConfigMap"):
        assert len(json.dumps(one)) < 1_000_000, one["metadata"]["name"]  # the limit is 1 MiB


def test_every_value_is_in_the_schema_and_the_other_way_round():
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(given: object, said: dict, place: str = "") -> None:
        known = said.get("properties")
        if not known or not isinstance(given, dict):
            return
        assert given.keys() == known.keys() - {"global"}, place
        for key, value in given.items():
            compare(value, known[key], f"{place}.{key}")

    compare(values, schema())
    assert (ROOT / "collector-config" / "kat-process.schema.json").is_file()


def test_every_group_of_values_has_a_row_that_explains_it():
    rows = re.findall(
        r"^\| ([\w.]+) \| \w+ \| .* \| (.*) \|$", (CHART / "README.md").read_text(), re.MULTILINE
    )
    explained = {name.partition(".")[0] for name, text in rows if text.strip()}
    plain = {"tolerations", "affinity", "topologySpreadConstraints", "priorityClassName"}
    assert yaml.safe_load((CHART / "values.yaml").read_text()).keys() - explained == plain


def test_artifact_hub_finds_what_it_asks_for():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart.keys() >= {"home", "sources", "maintainers", "icon", "keywords", "kubeVersion"}
    annotations = {
        key.removeprefix("artifacthub.io/"): yaml.safe_load(text)
        for key, text in chart["annotations"].items()
    }
    assert annotations.keys() >= {"category", "license", "prerelease", "links", "images", "changes"}
    for one in annotations["links"]:
        path = re.search(r"/(?:tree|blob)/main/(.*)", one["url"])
        assert path, one
        assert (ROOT / path[1]).exists(), one
    assert (ROOT / "helm" / chart["icon"].rpartition("/")[2]).is_file()
    assert yaml.safe_load((ROOT / "helm" / "artifacthub-repo.yml").read_text())["owners"]


def _certificates(folder: Path) -> None:
    """A key and certificate for settings that name some, and a token."""
    (folder / "token").write_text("secret-of-the-test")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=kat", "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
        capture_output=True, check=True,
    )  # fmt: skip
    (folder / "ca.crt").write_text((folder / "tls.crt").read_text())
