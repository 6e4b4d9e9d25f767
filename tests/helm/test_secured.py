"""What the chart renders for TLS and a token, run: worker, collector in front, `kat process`.

Everything is on loopback, under the names that the chart gives: only addresses, ports and folders
are put in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from kat_otel.capture import Poll
from kat_otel.instrumentation.sending.control import Control
from kat_otel.instrumentation.sending.counts import Counts
from kat_otel.instrumentation.sending.endpoints import Endpoint
from kat_otel.instrumentation.sending.http_client import HttpClient
from kat_otel.instrumentation.sending.places import Places
from kat_otel.instrumentation.settings import Settings
from tests.helm.conftest import Objects, environment_of, file_of, kat_of, patch_of
from tests.integration.servers import WHOLE, Servers, free_ports
from tests.integration.sink import Sink
from tests.integration.traffic import Instance, span_ids
from tests.processor.receiving import Pki

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]

TOKEN = "0123456789abcdef"


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
def secrets(tmp_path: Path, notes) -> Path:
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


def worker_of(objects: Objects, secrets: Path) -> dict[str, str]:
    """The environment of a patched server, its secret's folder and variable put in."""
    given = environment_of(patch_of(objects)["containers"][0])
    return {
        name: value.replace("/etc/kat-otel", str(secrets)).replace("$(KAT_TOKEN)", TOKEN)
        for name, value in given.items()
    }


def at(url: str, port: int) -> str:
    """The URL with another port."""
    said = urlsplit(url)
    return said._replace(netloc=f"{said.hostname}:{port}").geturl()


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
    environment = worker_of(objects, secrets)
    spans, asked = Endpoint.read(environment, "traces"), Settings.read(environment)
    requests = Instance("secured").steps(range(5))

    def post(url: str, body: bytes, headers: Mapping[str, str]) -> int:
        client = HttpClient(url, ca_file=spans.ca_file, address="127.0.0.1")
        try:
            said = {"content-type": "application/x-protobuf", **headers}
            return client.post([body], said, 10.0).status
        finally:
            client.close()

    to_front, to_kat = at(spans.url, port), at(asked.control_endpoint, control)
    for wrong in ({}, {"authorization": "Bearer guess"}):
        assert post(to_front, requests[0].data, wrong) == 401
        assert post(to_kat, b"", wrong) == 401
    for request in requests:
        assert post(to_front, request.data, spans.headers) == 200
    servers.until("every span", lambda: not sink.missing(span_ids(requests)))
    here = ["127.0.0.1", "127.0.0.1"]  # several, or the name itself would be asked for
    places = Places(to_kat, ca_file=asked.control_ca_file, resolve=lambda *_: here.copy())
    worker = Control(asked, Counts(), places=places)
    worker.start()
    try:
        worker.at(Poll("secured", 0, 5, 0))
        servers.until("orders", lambda: worker.orders is not None)
        assert worker.orders is not None
        assert worker.orders.judged_here
    finally:
        worker.close()
    for server in servers.running:
        assert TOKEN not in server.said()
