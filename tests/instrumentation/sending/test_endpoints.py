"""OpenTelemetry's variables, read as its specification says."""

from __future__ import annotations

import pytest

from kat_otel.instrumentation.sending.endpoints import Endpoint

BASE = "OTEL_EXPORTER_OTLP_"


@pytest.mark.parametrize(
    ("variables", "signal", "url"),
    [
        ({}, "traces", "http://localhost:4318/v1/traces"),
        ({}, "metrics", "http://localhost:4318/v1/metrics"),
        ({"ENDPOINT": "http://c:4318"}, "traces", "http://c:4318/v1/traces"),
        ({"ENDPOINT": "https://c/otlp/"}, "metrics", "https://c/otlp/v1/metrics"),
        ({"ENDPOINT": "c:4318"}, "traces", "http://c:4318/v1/traces"),
        (
            {"ENDPOINT": "http://c", "TRACES_ENDPOINT": "http://t/in"},
            "traces",
            "http://t/in",
        ),
        (
            {"ENDPOINT": "http://c", "TRACES_ENDPOINT": "http://t/in"},
            "metrics",
            "http://c/v1/metrics",
        ),
        ({"ENDPOINT": "http://c:4317", "PROTOCOL": "grpc"}, "traces", "http://c:4317"),
        ({"PROTOCOL": "grpc"}, "traces", "http://localhost:4317"),
    ],
)
def test_the_address_of_a_signal(variables: dict[str, str], signal, url: str) -> None:
    environment = {BASE + key: value for key, value in variables.items()}
    assert Endpoint.read(environment, signal).url == url


def test_everything_else_may_be_said_for_one_signal_alone() -> None:
    environment = {
        f"{BASE}HEADERS": "authorization=Bearer%20abc, x-tenant = 7",
        f"{BASE}METRICS_HEADERS": "x-tenant=8",
        f"{BASE}COMPRESSION": "gzip",
        f"{BASE}TRACES_COMPRESSION": "none",
        f"{BASE}CERTIFICATE": "/ca.pem",
        f"{BASE}CLIENT_CERTIFICATE": "/me.pem",
        f"{BASE}CLIENT_KEY": "/me.key",
    }
    traces, metrics = Endpoint.read(environment, "traces"), Endpoint.read(environment, "metrics")
    assert traces.headers == {"authorization": "Bearer abc", "x-tenant": "7"}
    assert metrics.headers == {"x-tenant": "8"}
    assert (traces.gzip, metrics.gzip) == (False, True)
    assert (traces.ca_file, traces.cert_file, traces.key_file) == (
        "/ca.pem",
        "/me.pem",
        "/me.key",
    )
    assert "abc" not in repr(traces)


@pytest.mark.parametrize(
    ("said", "seconds"), [("", 10), ("5", 5), ("0.5", 0.5), ("10000", 10), ("250", 0.25)]
)
def test_a_timeout_is_seconds_or_milliseconds_by_its_size(said: str, seconds: float) -> None:
    assert Endpoint.read({f"{BASE}TIMEOUT": said}, "traces").timeout == seconds


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ENDPOINT", "ftp://c"),
        ("ENDPOINT", "http://"),
        ("TIMEOUT", "soon"),
        ("TIMEOUT", "-1"),
        ("TIMEOUT", "inf"),
        ("COMPRESSION", "lzma"),
        ("PROTOCOL", "http/json"),
        ("HEADERS", "no-equals-sign"),
        ("HEADERS", "a=b%0d%0aevil: 1"),
        ("HEADERS", "na me=b"),
    ],
)
def test_what_makes_no_sense_is_named_and_left_out(variable: str, value: str, caplog) -> None:
    assert Endpoint.read({BASE + variable: value}, "traces") == Endpoint.read({}, "traces")
    assert variable in caplog.text or value in caplog.text
    assert "evil" not in caplog.text
