"""How a real collector may hand over: HTTP or gRPC, packed or not, over TLS and with a token."""

from __future__ import annotations

import pytest
import yaml

from tests.integration.servers import WHOLE
from tests.integration.traffic import Instance, Sender, span_ids
from tests.processor.receiving import Pki

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

INSTANCE = Instance("wire")
RETRY = {"initial_interval": "200ms", "max_interval": "1s", "max_elapsed_time": "0s"}


def hand_over(servers, exporter, **extensions):
    """A collector that sends what it gets to one exporter.

    Returns:
        Where it receives.
    """
    ((kind, settings),) = exporter.items()
    endpoint, health = servers.endpoint(), servers.endpoint()
    extensions["health_check"] = {"endpoint": health}
    config = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": endpoint}}}},
        "exporters": {kind: {**settings, "retry_on_failure": RETRY}},
        "extensions": extensions,
        "service": {
            "extensions": list(extensions),
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": [kind]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }
    file = servers.folder / "hand-over.yaml"
    file.write_text(yaml.safe_dump(config))
    servers.collector("collector", file, KAT_COLLECTOR_HEALTH_ENDPOINT=health)
    return endpoint


def arrives(servers, sink, kat, endpoint):
    requests = INSTANCE.steps(range(10))
    with Sender(endpoint) as sender:
        sender.send(requests)
    servers.until("every span", lambda: not sink.missing(span_ids(requests)))
    servers.until("the books", lambda: kat.books().pending == 0)
    books = kat.books()
    assert books.taken - books.repeated == len(span_ids(requests)), str(books)
    assert (books.unexplained, books.lost) == (0, 0), str(books)


@pytest.mark.parametrize("encoding", ["proto", "json"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_over_http(servers, sink, compression, encoding):
    kat = servers.kat("kat", sink.endpoint, **WHOLE)
    http = {
        "endpoint": f"http://{kat.http_endpoint}",
        "compression": compression,
        "encoding": encoding,
    }
    arrives(servers, sink, kat, hand_over(servers, {"otlp_http": http}))


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_over_grpc(servers, sink, compression):
    kat = servers.kat("kat", sink.endpoint, **WHOLE)
    tls = {"insecure": True}
    grpc = {"endpoint": kat.endpoint, "compression": compression, "tls": tls}
    arrives(servers, sink, kat, hand_over(servers, {"otlp_grpc": grpc}))


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("kind", ["otlp_grpc", "otlp_http"])
def test_over_tls_with_a_bearer_token(servers, sink, pki, kind, tmp_path):
    cert, key = map(str, pki.server)
    tokens = tmp_path / "tokens"
    tokens.write_text("right\n")
    secured = {
        "tls": {"cert_file": cert, "key_file": key},
        "auth": {"token_file": str(tokens)},
    }
    kat = servers.kat("kat", sink.endpoint, receiver=secured | {"http": secured}, **WHOLE)
    shown = tmp_path / "shown"
    shown.write_text("wrong")
    endpoints = {"otlp_grpc": kat.endpoint, "otlp_http": f"https://{kat.http_endpoint}"}
    exporter = {
        "endpoint": endpoints[kind],
        "tls": {"ca_file": str(pki.ca[0])},
        "auth": {"authenticator": "bearertokenauth"},
        "sending_queue": {"enabled": False},  # so that the sender hears what kat process said
    }
    token = {"filename": str(shown)}
    endpoint = hand_over(servers, {kind: exporter}, bearertokenauth=token)
    (request, *_) = INSTANCE.steps([0])
    with Sender(endpoint) as sender:
        assert sender.refused_for_good(request.data, INSTANCE.name) is not None
    assert kat.books().taken == 0
    shown.write_text("right")  # the extension reads it again when it changes
    servers.until("the token", lambda: _taken(endpoint, request))
    arrives(servers, sink, kat, endpoint)
    assert "right" not in kat.said(), "a token was printed"


def _taken(endpoint, request):
    with Sender(endpoint) as sender:
        return sender.refused_for_good(request.data, INSTANCE.name) is None
