"""Who calls whom in the chart: names, ports, certificates, tokens; and what scaling down leaves."""

from __future__ import annotations

import re
import subprocess
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from kat_otel.instrumentation.settings import Settings
from scripts.helm_chart import CHART
from tests.helm.conftest import (
    VALUES,
    containers_of,
    environment_of,
    file_of,
    kat_of,
    of_kind,
    patch_of,
    pods_of,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]
BY_NAME = pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)
SECURED = pytest.mark.parametrize("name", ["tls", "agents"])
METRICS = {8887, 8888, 8889}


@BY_NAME
def test_workers_are_sent_where_somebody_listens(rendered, values):
    objects = rendered(values)
    services = {
        f"{one['metadata']['name']}.kat.svc": {port["port"] for port in one["spec"]["ports"]}
        for one in of_kind(objects, "Service")
    }
    server = environment_of(patch_of(objects)["containers"][0])
    called = [server["OTEL_EXPORTER_OTLP_ENDPOINT"], server["KAT_CONTROL_ENDPOINT"]]
    for one in of_kind(objects, "Instrumentation"):
        called.append(one["spec"]["exporter"]["endpoint"])
        called.append(environment_of(one["spec"]["python"])["KAT_CONTROL_ENDPOINT"])
        assert sorted(set(called)) == sorted(called[:2])  # both ways lead to the same
    for agent in of_kind(objects, "DaemonSet"):
        environment = environment_of(agent["spec"]["template"]["spec"]["containers"][0])
        called.append(f"//{environment['KAT_GATEWAY_ENDPOINT']}")
    for url in map(urlsplit, called):
        assert url.port in services[str(url.hostname)], url


@BY_NAME
def test_whole_steps_can_be_asked_of_the_processor_that_judges(rendered, values):
    """Workers ask the processors one by one, so their name must resolve to each of them."""
    objects = rendered(values)
    host = urlsplit(environment_of(patch_of(objects)["containers"][0])["KAT_CONTROL_ENDPOINT"])
    assert (host.port, host.path) == (4329, "/v1/opamp")
    (service,) = [
        one
        for one in of_kind(objects, "Service")
        if f"{one['metadata']['name']}.kat.svc" == host.hostname
    ]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"]["app.kubernetes.io/component"] == "processor"
    assert kat_of(objects)["control"]["endpoint"] == "0.0.0.0:4329"


@SECURED
def test_the_certificate_has_every_name_that_is_called(rendered, notes, name):
    objects = rendered(name)
    told = re.search(r"good for these names:\n((?:  .*\n)+)", notes(name))
    assert told
    names = set(told[1].split())
    server = environment_of(patch_of(objects)["containers"][0])
    called = {
        urlsplit(url).hostname
        for url in (server["OTEL_EXPORTER_OTLP_ENDPOINT"], server["KAT_CONTROL_ENDPOINT"])
    }
    if name == "tls":
        to = file_of(objects, "receiver-overlay.yaml")["exporters"]["load_balancing"]
        called.add(to["protocol"]["otlp"]["tls"]["server_name_override"])
        assert to["resolver"]["dns"]["hostname"] in names
    else:
        called.add("kat-kat-otel.kat.svc")  # the agents call it
    assert called <= names
    documented = (CHART / "README.md").read_text()
    for one in names:
        assert (
            one.replace("kat-kat-otel", "NAME").replace(".kat.svc", ".NAMESPACE.svc") in documented
        )


@SECURED
def test_every_hop_between_pods_shows_a_token_and_asks_for_one(rendered, name):
    objects = rendered(name)
    bearer = {"authenticator": "bearertokenauth/kat"}
    overlays = ["receiver-overlay.yaml", *(["agent-overlay.yaml"] if name == "agents" else [])]
    for overlay in overlays:
        said = file_of(objects, overlay)
        for port in said["receivers"]["otlp"]["protocols"].values():
            assert port["auth"] == bearer
            assert port["tls"]["cert_file"] == "/etc/kat-tls/tls.crt"
        assert "bearertokenauth/kat" in said["service"]["extensions"]
        assert said["extensions"]["bearertokenauth/kat"]["filename"] == "/etc/kat-token/token"
    kat = kat_of(objects)
    assert kat["control"]["auth"] == {"token_file": "/etc/kat-token/token"}
    if name == "tls":
        front = file_of(objects, "receiver-overlay.yaml")["exporters"]["load_balancing"]
        assert front["protocol"]["otlp"]["auth"] == bearer
        assert kat["receiver"]["auth"] == kat["control"]["auth"]
        assert kat["receiver"]["tls"]["cert_file"] == "/etc/kat-tls/tls.crt"
    else:
        agent = file_of(objects, "agent-overlay.yaml")["exporters"]["otlp_grpc/gateway"]
        assert agent["auth"] == bearer
        assert agent["tls"] == {"insecure": False, "ca_file": "/etc/kat-tls/ca.crt"}
        assert kat["receiver"]["endpoint"] == "127.0.0.1:4327"  # its collector's alone
    for pod in pods_of(objects):
        secrets = {one["secret"]["secretName"] for one in pod["spec"]["volumes"] if "secret" in one}
        assert secrets == {"kat-tls", "kat-token"}
        for container in containers_of(pod):
            mounts = {one["mountPath"] for one in container["volumeMounts"]}
            assert mounts >= {"/etc/kat-tls", "/etc/kat-token"}


def test_the_operator_mounts_what_its_workers_are_told_of(rendered):
    """It mounts ``exporter.tls.secretName`` whole, at a folder that is named after it."""
    (one,) = of_kind(rendered("tls"), "Instrumentation")
    exporter, python = one["spec"]["exporter"], one["spec"]["python"]
    assert exporter["tls"] == {"secretName": "kat-worker", "ca_file": "ca.crt"}
    environment = environment_of(python)
    folder = "/otel-auto-instrumentation-secret-kat-worker"
    assert environment["KAT_CONTROL_CERTIFICATE"] == f"{folder}/ca.crt"
    assert environment["KAT_CONTROL_TOKEN_FILE"] == f"{folder}/token"
    names = list(environment)
    assert environment["OTEL_EXPORTER_OTLP_HEADERS"] == "authorization=Bearer%20$(KAT_TOKEN)"
    assert names.index("KAT_TOKEN") < names.index("OTEL_EXPORTER_OTLP_HEADERS")  # to be put in
    (token,) = [one for one in python["env"] if one["name"] == "KAT_TOKEN"]
    assert token["valueFrom"] == {"secretKeyRef": {"name": "kat-worker", "key": "token"}}


@pytest.mark.parametrize("version", ["1.30", "1.33", "1.36"])
@BY_NAME
def test_a_patched_server_is_one_that_kubernetes_takes(rendered, values, version):
    spec = patch_of(rendered(values))
    spec["containers"][0]["image"] = "vllm/vllm-openai"
    kubernetes_validate.validate(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "llama"},
            "spec": {
                "selector": {"matchLabels": {"app": "llama"}},
                "template": {"metadata": {"labels": {"app": "llama"}}, "spec": spec},
            },
        },
        version,
        strict=True,
    )
    volumes = {one["name"] for one in spec["volumes"]}
    for container in containers_of({"spec": spec}):
        assert {one["name"] for one in container["volumeMounts"]} <= volumes


@BY_NAME
def test_a_worker_knows_every_variable_that_it_is_given(rendered, values):
    known = {one.metadata["variable"] for one in fields(Settings)} | {"KAT_OTEL", "KAT_TOKEN"}
    given = environment_of(patch_of(rendered(values))["containers"][0])
    assert {name for name in given if name.startswith("KAT_")} <= known


def test_with_kafka_the_instance_is_told_in_a_header_past_the_agent(rendered):
    objects = rendered("kafka")
    server = environment_of(patch_of(objects)["containers"][0])
    assert server["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://kat-kat-otel.kat.svc:4318"
    assert server["OTEL_EXPORTER_OTLP_HEADERS"] == "kat-instance-id=$(KAT_INSTANCE_ID)"
    agent = file_of(objects, "agent-overlay.yaml")["exporters"]["otlp_grpc/gateway"]
    assert agent["headers"] == {"kat-instance-id": "${env:KAT_INSTANCE_ID}"}


def test_a_patch_names_the_instance_itself(rendered):
    """``kubectl patch`` puts its variables before the container's own: those cannot be meant."""
    for given in ((), ("--set-json", 'workers.env=[{"name": "KAT_INSTANCE_ID", "value": "l-3"}]')):
        server = environment_of(patch_of(rendered("kafka", *given))["containers"][0])
        assert server["KAT_INSTANCE_ID"] == ("l-3" if given else "THIS-INSTANCE")
        names = list(server)
        assert names.index("KAT_INSTANCE_ID") < names.index("OTEL_EXPORTER_OTLP_HEADERS")
    assert "KAT_INSTANCE_ID" not in environment_of(patch_of(rendered("tls"))["containers"][0])
    (one,) = of_kind(
        rendered("kafka"), "Instrumentation"
    )  # the operator's come after: the pod says
    assert "KAT_INSTANCE_ID" not in environment_of(one["spec"]["python"])


def test_what_is_put_into_the_patch_stands_where_it_belongs(rendered, notes):
    printed = notes("kafka", "--set", "workers.operator=false")
    (edit,) = re.findall(r"\| sed '(.*)' > patch.yaml", printed)
    (workers,) = [
        one for one in rendered("kafka") if one["metadata"]["name"] == "kat-kat-otel-workers"
    ]
    done = subprocess.run(
        ["sed", edit],
        input=workers["data"]["patch.yaml"],
        capture_output=True,
        text=True,
        check=True,
    )
    (server,) = yaml.safe_load(done.stdout)["spec"]["template"]["spec"]["containers"]
    environment = environment_of(server)
    assert server["name"] == "vllm"
    assert environment["KAT_INSTANCE_ID"] == "llama"
    assert environment["OTEL_EXPORTER_OTLP_HEADERS"] == "kat-instance-id=$(KAT_INSTANCE_ID)"


def test_agents_are_on_gpu_nodes_alone_and_off_by_default(rendered):
    assert of_kind(rendered("default"), "DaemonSet") == []
    (agent,) = of_kind(rendered("agents"), "DaemonSet")
    spec = agent["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    files = [one.rpartition("/")[2] for one in spec["containers"][0]["args"]]
    assert files == ["agent.yaml", "agent-dcgm.yaml", "agent-overlay.yaml"]
    (service,) = [
        one
        for one in of_kind(rendered("agents"), "Service")
        if one["metadata"]["name"] == "kat-kat-otel-agent"
    ]
    assert service["spec"]["internalTrafficPolicy"] == "Local"


@pytest.mark.parametrize("name", ["agents", "load-balanced", "tls"])
def test_the_policy_lets_in_who_sends_and_who_scrapes_and_nobody_else(rendered, name):
    objects = rendered(name)
    (policy,) = of_kind(objects, "NetworkPolicy")
    rules = [
        ({port["port"] for port in rule["ports"]}, rule["from"])
        for rule in policy["spec"]["ingress"]
    ]
    scraped = [peers for ports, peers in rules if ports & METRICS]
    assert [ports for ports, _ in rules if ports & METRICS] == [METRICS]
    where = {"kubernetes.io/metadata.name": "monitoring"}
    wanted = {"namespaceSelector": {"matchLabels": where} if name == "agents" else {}}
    assert scraped == [[wanted]]
    offered = {port["port"] for one in of_kind(objects, "Service") for port in one["spec"]["ports"]}
    assert offered <= set().union(*(ports for ports, _ in rules))
    to_processors = [peers for ports, peers in rules if 4327 in ports]
    for peers in to_processors:
        (selected,) = [peer["podSelector"]["matchLabels"] for peer in peers]
        assert selected["app.kubernetes.io/component"] == "front"
    assert len(to_processors) == (0 if name == "agents" else 1)


def test_every_tier_is_scraped_and_disrupted_one_at_a_time(rendered):
    objects = rendered("load-balanced")
    (monitor,) = of_kind(objects, "ServiceMonitor")
    (wanted,) = monitor["spec"]["selector"]["matchExpressions"]
    scraped: dict[str, set[str]] = {}
    for one in of_kind(objects, "Service"):
        component = one["metadata"]["labels"].get("app.kubernetes.io/component", "")
        if component in wanted["values"]:
            ports = {port["name"] for port in one["spec"]["ports"]}
            scraped[component] = ports & {end["port"] for end in monitor["spec"]["endpoints"]}
    assert scraped == {
        "processor": {"kat-metrics", "fleet-metrics", "col-metrics"},
        "front": {"col-metrics"},
    }
    guarded = [
        one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        for one in of_kind(objects, "PodDisruptionBudget")
    ]
    assert guarded == ["processor", "front"]


@BY_NAME
def test_metrics_are_where_a_scraper_reaches_them(rendered, values):
    objects = rendered(values)
    for pod in pods_of(objects):
        for container in containers_of(pod):
            if container["name"] == "kat":
                continue
            last: dict[str, Any] = {}
            for name in (one.rpartition("/")[2] for one in container["args"]):
                telemetry = file_of(objects, name)["service"].get("telemetry", {})
                last = telemetry.get("metrics", last)
            (reader,) = last["readers"]
            assert reader["pull"]["exporter"]["prometheus"] == {"host": "0.0.0.0", "port": 8887}


@BY_NAME
def test_what_a_processor_has_taken_leaves_before_it_goes_or_waits_for_it(rendered, values):
    objects = rendered(values)
    sets = of_kind(objects, "StatefulSet")
    (processor,) = [one for one in sets if one["metadata"]["name"] == "kat-kat-otel"]
    spec = processor["spec"]["template"]["spec"]
    drain = int(kat_of(objects)["shutdown_timeout"].removesuffix("s"))
    (collector,) = spec["initContainers"]
    assert collector["restartPolicy"] == "Always"  # a sidecar: it ends after `kat process`
    pause = collector["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drain >= 20
    assert pause < spec["terminationGracePeriodSeconds"] - drain
    for one in sets:
        kept = one["spec"]["persistentVolumeClaimRetentionPolicy"]
        assert kept == {"whenScaled": "Retain", "whenDeleted": "Retain"}


def test_an_autoscaler_takes_no_processor_away_unless_told_and_then_slowly(rendered):
    (adds,) = of_kind(rendered("load-balanced"), "HorizontalPodAutoscaler")
    assert adds["spec"]["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}
    (both,) = of_kind(rendered("kafka"), "HorizontalPodAutoscaler")
    assert both["spec"]["behavior"]["scaleDown"] == {
        "stabilizationWindowSeconds": 1800,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 1800}],
    }


def test_who_is_not_ready_is_routed_around_but_can_be_asked(rendered):
    """A worker's kill switch must not depend on whether the log is full."""

    def kept(name: str) -> dict[str, bool]:
        return {
            one["metadata"]["name"].removeprefix("kat-kat-otel"): one["spec"].get(
                "publishNotReadyAddresses", False
            )
            for one in of_kind(rendered(name), "Service")
        }

    assert kept("default") == {"": True, "-processors": True}  # its collector queues meanwhile
    assert kept("load-balanced") == {"": False, "-processors": False, "-front": False}
    assert kept("kafka")["-processors"]


def test_collectors_get_variables_and_files_from_secrets(rendered, tmp_path):
    values = tmp_path / "values.yaml"
    password = {"secretKeyRef": {"name": "kafka", "key": "password"}}
    volume = {"name": "backend-ca", "secret": {"secretName": "jaeger-ca"}}
    mount = {"name": "backend-ca", "mountPath": "/etc/backend", "readOnly": True}
    said = {
        "topology": "kafka",
        "kafka": {"brokers": ["b:9092"]},
        "collector": {
            "extraEnv": [{"name": "KAT_KAFKA_PASSWORD", "valueFrom": password}],
            "extraVolumes": [volume],
            "extraVolumeMounts": [mount],
        },
    }
    values.write_text(yaml.safe_dump(said))
    pods = pods_of(rendered(values))
    assert len(pods) == 2
    for pod in pods:
        (collector,) = [one for one in containers_of(pod) if one["name"] == "collector"]
        assert {"name": "KAT_KAFKA_PASSWORD", "valueFrom": password} in collector["env"]
        assert volume in pod["spec"]["volumes"]
        assert mount in collector["volumeMounts"]


def test_a_name_of_ones_own_is_everywhere(rendered):
    objects = rendered("tls", "--set", "fullnameOverride=watcher")
    assert {one["metadata"]["name"].partition("-")[0] for one in objects} == {"watcher"}
    assert "kat-kat-otel" not in yaml.safe_dump_all(objects)
