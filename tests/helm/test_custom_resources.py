"""Resources of the operators, held against their own definitions: nothing unknown in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.helm.conftest import VALUES, of_kind

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]
BY_NAME = pytest.mark.parametrize("values", VALUES, ids=lambda file: file.stem)
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
DEFINITIONS = Path("example", "prometheus-operator-crd")
RULES = {"groups": [{"name": "kat-test", "rules": [{"record": "kat:up", "expr": "up"}]}]}


def closed(schema: Any) -> Any:
    """A schema that refuses fields it does not name, which an API server would drop in silence."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if "properties" in made and made.get("type") == "object" and made["properties"]:
        made.setdefault("additionalProperties", False)
    return made


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By kind; those of Prometheus come from its operator's Go module."""
    if shutil.which("go") is None:
        pytest.skip("no Go to fetch the operators' definitions: apt-get install golang")
    done = subprocess.run(
        ["go", "mod", "download", "-json", PROMETHEUS_OPERATOR],
        cwd=tmp_path_factory.mktemp("go"),
        env={**os.environ, "GOWORK": "off", "GOFLAGS": "-mod=mod"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    folder = Path(json.loads(done.stdout)["Dir"]) / DEFINITIONS
    own = yaml.safe_load(Path(__file__).with_name("instrumentation.yaml").read_text())
    found = {"Instrumentation": closed(own)}
    for kind in ("ServiceMonitor", "PrometheusRule"):
        file = folder / f"monitoring.coreos.com_{kind.lower()}s.yaml"
        (version,) = yaml.safe_load(file.read_text())["spec"]["versions"]
        schema = closed(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}  # any object's
        found[kind] = schema
    return found


def refused(one: dict[str, Any], schema: Any) -> list[str]:
    """What a definition has against an object."""
    errors = jsonschema.Draft202012Validator(schema).iter_errors(one)
    return [f"{one['kind']} {error.json_path}: {error.message}" for error in errors]


@BY_NAME
def test_operators_know_every_field_that_they_are_given(rendered, schemas, values):
    for one in of_kind(rendered(values), *schemas):
        assert refused(one, schemas[one["kind"]]) == []


def test_a_rule_file_becomes_what_the_operator_takes(rendered, chart_with, schemas):
    chart = chart_with("rules", "test.yaml", f"# Made by `kat rules`.\n{yaml.safe_dump(RULES)}")
    made = of_kind(rendered("load-balanced", chart=chart), "PrometheusRule")
    (one,) = [each for each in made if each["metadata"]["name"] == "kat-kat-otel-test"]
    assert refused(one, schemas["PrometheusRule"]) == []


def test_a_misspelt_field_would_be_seen(rendered, schemas):
    (monitor,) = of_kind(rendered("load-balanced"), "ServiceMonitor")
    (worker,) = of_kind(rendered("tls"), "Instrumentation")
    monitor["spec"]["endpoints"][0]["honourLabels"] = True
    worker["spec"]["exporter"]["tls"]["caFile"] = "ca.crt"
    for one, field in ((monitor, "honourLabels"), (worker, "caFile")):
        (said,) = refused(one, schemas[one["kind"]])
        assert field in said
