"""What the chart renders for TLS and a token, run: worker, collector in front, `kat process`.

Everything is on loopback, under the names that the chart gives: only addresses, ports and folders
are put in.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kat_otel.instrumentation.sending.http_client import HttpClient
from tests.helm.conftest import Objects
from tests.helm.test_topology import file_of, kat_of, notes  # noqa: F401 - a fixture
from tests.integration.servers import WHOLE, Servers, free_ports
from tests.integration.sink import Sink
from tests.integration.traffic import Instance, span_ids
from tests.processor.receiving import Pki

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]

TOKEN = "0123456789abcdef"
FRONT, PROCESSORS = "kat-kat-otel.kat.svc", "kat-kat-otel-processors.kat.svc"


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture
def servers(tmp_path: Path, sink: Sink) -> Iterator[Servers]:
    del sink  # it ends after them
    servers = Servers(tmp_path)
    yield servers
    servers.stop()


@pytest.fixture
def secrets(tmp_path: Path, notes) -> Path:  # noqa: F811 - the fixture
    """What a pod has of its secrets; the certificate is good for the names that helm prints."""
    names = notes("tls").partition("good for these names:")[2].partition("\n\n")[0].split()
    pki = Pki(tmp_path, ",".join(f"DNS:{name}" for name in names))
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name, file in (("tls.crt", pki.server[0]), ("tls.key", pki.server[1])):
        (folder / name).write_bytes(file.read_bytes())
    (folder / "ca.crt").write_bytes(pki.ca[0].read_bytes())
    (folder / "token").write_text(TOKEN)
    return folder


def placed(said: dict[str, Any], secrets: Path) -> dict[str, Any]:
    """A file with the folders of a pod in their places here."""
    text = yaml.safe_dump(said).replace("/etc/kat-tls", str(secrets))
    return yaml.safe_load(text.replace("/etc/kat-token", str(secrets)))


def front(servers: Servers, objects: Objects, secrets: Path, processor: str) -> int:
    """Starts the collector in front; returns the port that workers send to."""
    grpc, http, metrics = free_ports(3)
    overlay = placed(file_of(objects, "receiver-overlay.yaml"), secrets)
    (reader,) = overlay["service"]["telemetry"]["metrics"]["readers"]
    reader["pull"]["exporter"]["prometheus"]["port"] = metrics
    # Where no name server knows the processors: their addresses, and all else as it is.
    resolver = {"dns": None, "static": {"hostnames": [processor]}}
    overlay["exporters"]["load_balancing"]["resolver"] = resolver
    files: list[str | Path] = []
    for name, said in (
        ("load-balancing.yaml", file_of(objects, "load-balancing.yaml")),
        ("receiver-overlay.yaml", overlay),
    ):
        files.append(servers.folder / name)
        Path(files[-1]).write_text(yaml.safe_dump(said))
    servers.collector(
        "front",
        files,
        KAT_COLLECTOR_GRPC_ENDPOINT=f"127.0.0.1:{grpc}",
        KAT_COLLECTOR_HTTP_ENDPOINT=f"127.0.0.1:{http}",
    )
    return http


def test_spans_and_polls_pass_with_the_token_and_under_the_names_alone(
    rendered, secrets, servers, sink
):
    objects = rendered("tls")
    settings = placed(kat_of(objects), secrets)
    sections = {
        name: {key: settings[name][key] for key in ("tls", "auth")}
        for name in ("receiver", "control")
    }
    sections["receiver"]["http"] = {"endpoint": None}
    (control,) = free_ports(1)
    sections["control"]["endpoint"] = f"127.0.0.1:{control}"
    kat = servers.kat("kat", sink.endpoint, **sections, **WHOLE)
    port = front(servers, objects, secrets, kat.endpoint)
    requests = Instance("secured").steps(range(5))

    def post(host: str, port: int, path: str, body: bytes, token: str) -> int:
        client = HttpClient(
            f"https://{host}:{port}{path}", ca_file=str(secrets / "ca.crt"), address="127.0.0.1"
        )
        headers = {
            "content-type": "application/x-protobuf",
            **({"authorization": f"Bearer {token}"} if token else {}),
        }
        try:
            return client.post([body], headers, 10.0).status
        finally:
            client.close()

    for token in ("", "guess"):
        assert post(FRONT, port, "/v1/traces", requests[0].data, token) == 401
        assert post(PROCESSORS, control, "/v1/opamp", b"", token) == 401
    for request in requests:
        assert post(FRONT, port, "/v1/traces", request.data, TOKEN) == 200
    assert post(PROCESSORS, control, "/v1/opamp", b"", TOKEN) == 200
    servers.until("every span", lambda: not sink.missing(span_ids(requests)))
    for server in servers.running:
        assert TOKEN not in server.said()
