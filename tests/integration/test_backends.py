"""The real collector takes the file of each backend; backends that can run here get the data."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import yaml

from kat_otel import semconv
from tests.integration.jaeger import Jaeger
from tests.integration.servers import CONFIG, KAT, Kat, Server, Servers, binary, get

pytestmark = pytest.mark.integration

BACKENDS = CONFIG / "backends"
README = (BACKENDS / "README.md").read_text()
FILES = {file.stem: file for file in sorted(BACKENDS.glob("*.yaml"))}
OF_THE_SECOND_COLLECTOR = {"clickhouse", "prometheus-remote-write"}
"""Files with exporters that the everyday collector does not have."""
PLACEHOLDERS = {
    "KAT_ELASTIC_ENDPOINT": "https://elastic.example:443",
    "KAT_ARMS_ENDPOINT": "arms.example:8090",
    "KAT_SLS_ENDPOINT": "project.example:10010",
}
"""Addresses without a default, which no configuration is valid without."""


def collector_for(name: str) -> str:
    return "otelcol-kat-backends" if name in OF_THE_SECOND_COLLECTOR else "otelcol-kat"


def validate(program: str, *files: Path, without: str = "") -> subprocess.CompletedProcess[str]:
    arguments = [part for file in files for part in ("--config", str(file))]
    return subprocess.run(
        [binary(program), "validate", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in PLACEHOLDERS.items() if name != without},
    )


# --- the files -----------------------------------------------------------------------------


def test_all_backends_are_there():
    wanted = (
        "alibaba-arms alibaba-sls clickhouse datadog elastic honeycomb jaeger "
        "prometheus-remote-write tempo"
    )
    assert list(FILES) == wanted.split()


@pytest.mark.parametrize("base", ["gateway.yaml", "backend.yaml"])
@pytest.mark.parametrize("name", FILES)
def test_the_collector_takes_the_backend(name, base):
    done = validate(collector_for(name), CONFIG / base, FILES[name])
    assert done.returncode == 0, done.stderr


def test_the_validation_notices_a_misspelt_setting(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text(FILES["honeycomb"].read_text().replace("compression:", "compresion:"))
    done = validate("otelcol-kat", CONFIG / "gateway.yaml", broken)
    assert done.returncode != 0
    assert "compresion" in done.stderr


def test_two_backends_are_joined_by_a_third_file(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    both = tmp_path / "both.yaml"
    both.write_text(example)
    files = [CONFIG / "gateway.yaml", FILES["tempo"], FILES["honeycomb"], both]
    done = validate("otelcol-kat", *files)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FILES)
def test_every_variable_of_a_backend_is_documented(name):
    live = re.sub(r"(^|\s)#.*", "", FILES[name].read_text(), flags=re.MULTILINE)
    variables = set(re.findall(r"\$\{env:(\w+)", live))
    assert variables
    assert not {variable for variable in variables if f"`{variable}`" not in README}


@pytest.mark.parametrize("name", FILES)
def test_secrets_come_from_the_environment_alone(name):
    secret = re.compile(r"(?i)(key|token|secret|password|authori[sz]ation|authentication|-team)")
    for setting, value in settings_of(yaml.safe_load(FILES[name].read_text())["exporters"]):
        if secret.search(setting):
            assert re.fullmatch(r"(ApiKey )?\$\{env:\w+(:-)?\}", value), f"{setting}: {value}"


@pytest.mark.parametrize("variable", PLACEHOLDERS)
def test_an_address_that_must_be_set_is_missed_at_once(variable):
    (name,) = [name for name, file in FILES.items() if variable in file.read_text()]
    done = validate("otelcol-kat", CONFIG / "gateway.yaml", FILES[name], without=variable)
    assert done.returncode != 0
    assert "endpoint" in done.stderr


def test_a_collector_without_the_secret_starts_and_says_so(servers, monkeypatch):
    monkeypatch.delenv("KAT_HONEYCOMB_API_KEY", raising=False)
    out = start_way_out(servers, "honeycomb", servers.endpoint())
    said = [line for line in out.said().splitlines() if "unset environment variable" in line]
    assert any("KAT_HONEYCOMB_API_KEY" in line for line in said)


@pytest.mark.parametrize("name", sorted(set(FILES) - {"prometheus-remote-write"}))
def test_what_waits_for_a_backend_is_on_disk_and_never_given_up(name):
    for exporter in yaml.safe_load(FILES[name].read_text())["exporters"].values():
        assert exporter["retry_on_failure"]["max_elapsed_time"] == 0
        queue = exporter["sending_queue"]
        assert queue["storage"] == "file_storage/kat"
        assert queue["block_on_overflow"] is True


@pytest.mark.parametrize("name", FILES)
def test_the_table_names_the_backend(name):
    assert f"| `{name}.yaml` |" in README


def test_queries_use_names_that_leave():
    """Every name in a query is one of the vocabulary, in the spelling of the backend."""
    known = {value for value in vars(semconv).values() if isinstance(value, str)}
    known |= {f"{semconv.METRIC_INCIDENTS}.total"}
    section = README.partition("## Find the pages")[2].partition("\n## ")[0]
    used = re.findall(r"\bkat[._][a-z_.]*[a-z]", section)
    assert len(used) > 20
    unknown = {name for name in used if name not in known and name.replace("_", ".") not in known}
    assert not unknown


def settings_of(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """Leaves with text, by their own name."""
    found: list[tuple[str, str]] = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += settings_of(value)
        elif isinstance(value, str):
            found.append((name, value))
    return found


# --- the real ones --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_documented_tags_find_the_incident_in_jaeger(traces, servers):
    jaeger = Jaeger.start(servers)
    kat = way_out(
        servers, "jaeger", KAT_JAEGER_ENDPOINT=jaeger.endpoint, KAT_JAEGER_INSECURE="true"
    )
    replay(kat, traces)
    # One step can't page: that takes three. The rest of the query is as documented.
    asked = urllib.parse.urlencode(
        {"service": "kat", "tags": json.dumps({"kat.page": "false", "kat.component": "host_cpu"})}
    )
    found = servers.until(
        "the incident in Jaeger",
        lambda: get(f"http://{jaeger.query}/api/traces?{asked}")["data"],
    )
    roots = [span for span in found[0]["spans"] if not span["references"]]
    assert [span["operationName"].split()[0] for span in roots] == ["step"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_remote_write_brings_the_incidents_to_a_real_prometheus(traces, servers, tmp_path):
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus not found: apt-get install --no-install-recommends prometheus")
    at = servers.endpoint()
    (tmp_path / "prometheus.yml").write_text("{}\n")
    servers.start(
        "prometheus",
        [
            program,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address={at}",
            "--web.enable-remote-write-receiver",
        ],
    )
    servers.until("Prometheus", lambda: "Ready" in str(get(f"http://{at}/-/ready")))
    kat = way_out(
        servers,
        "prometheus-remote-write",
        KAT_REMOTE_WRITE_ENDPOINT=f"http://{at}/api/v1/write",
    )
    replay(kat, traces)
    (query,) = re.findall(r"\| Prometheus \| `(sum by .*)` \|", README)
    # One step can't page: that takes three. The rest of the query is as documented.
    query = query.replace("true", "false").replace("nvlink", "host_cpu")
    asked = urllib.parse.urlencode({"query": query})
    found = servers.until(
        "the incidents in Prometheus",
        lambda: get(f"http://{at}/api/v1/query?{asked}")["data"]["result"],
    )
    assert {series["metric"]["kat_instance_id"] for series in found} == {"dlrm"}
    assert "7" in {series["metric"]["kat_rank"] for series in found}


def way_out(servers: Servers, name: str, **environment: str) -> Kat:
    """Starts a ``kat process`` before ``backend.yaml`` with a backend's file."""
    back = servers.endpoint()
    kat = servers.kat("kat", back)
    start_way_out(servers, name, back, **environment)
    return kat


def start_way_out(servers: Servers, name: str, at: str, **environment: str) -> Server:
    """Starts ``backend.yaml`` with a backend's file, listening there for a ``kat process``."""
    return servers.collector(
        "out",
        ["backend.yaml", f"backends/{name}.yaml"],
        program=collector_for(name),
        KAT_RETURN_ENDPOINT=at,
        KAT_PROMETHEUS_ENDPOINT=servers.endpoint(),
        **environment,
    )


def replay(kat: Kat, traces: Path) -> None:
    """Sends the real step in which ranks 4, 5 and 7 are late."""
    command = [*KAT, "replay", str(traces / "dlrm_8rank")]
    done = subprocess.run(
        [*command, "--endpoint", kat.endpoint, "--instance", "dlrm"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
