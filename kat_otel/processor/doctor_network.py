"""Checks of the network: our own ports, and the endpoint that spans are exported to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import grpc

from kat_otel.config import Config, ExporterConfig
from kat_otel.errors import ConfigError
from kat_otel.finding import Finding
from kat_otel.processor.channel import open_channel
from kat_otel.processor.defaults import CONVENTIONAL_PORTS
from kat_otel.processor.doctor_running import Running
from kat_otel.processor.listen import bind

__all__ = ["check_endpoint", "check_ports"]

_PATIENCE_S: Final = 5.0
_SERVICES: Final = {
    "traces": "trace.v1.TraceService",
    "logs": "logs.v1.LogsService",
    "metrics": "metrics.v1.MetricsService",
}
_REMEDIES: Final = {
    grpc.StatusCode.UNAVAILABLE: "start the collector (its otlp receiver's grpc endpoint), or set "
    "exporter.endpoint; if it wants TLS, see exporter.tls",
    grpc.StatusCode.DEADLINE_EXCEEDED: "see that no firewall drops packets on the way, or raise "
    "exporter.timeout",
    grpc.StatusCode.UNAUTHENTICATED: "set exporter.headers: {authorization: 'Bearer ${env:TOKEN}'}",
    grpc.StatusCode.PERMISSION_DENIED: "give the token of exporter.headers the right to write",
    grpc.StatusCode.UNIMPLEMENTED: "name an OTLP receiver over gRPC with a pipeline of this signal",
}


def check_ports(
    config: Config, filled: frozenset[str], running: Running | None
) -> Iterator[Finding]:
    """Yields whether our ports can be had.

    Args:
        config: the settings.
        filled: keys that nobody asked for: their ports may be taken.
        running: the processor that runs on these settings, whose ports they may be.
    """
    for key in ("receiver.endpoint", *CONVENTIONAL_PORTS):
        endpoint: Any = config
        for name in key.split("."):
            endpoint = getattr(endpoint, name)
        if endpoint is None:
            continue
        topic = f"port of {key.removesuffix('.endpoint')}"
        try:
            for sock in bind(endpoint, key):
                sock.close()
        except ConfigError as error:
            if running is not None and running.may_hold(endpoint):
                yield Finding(topic, "ok", f"{endpoint} is in use, by the running processor")
            elif key in filled:
                stays = "would stay shut" if running is None else "stays shut: another process's"
                remedy = f"name another port in {key}, or null if it is not wanted"
                yield Finding(topic, "warn", f"{endpoint} is taken and {stays}", remedy)
            else:
                listening = f"ss -ltnp 'sport = :{endpoint.rpartition(':')[2]}' tells who has it"
                yield Finding(topic, "fail", str(error), listening)
        else:
            yield Finding(topic, "ok", f"{endpoint} is free")


def check_endpoint(config: ExporterConfig) -> Iterator[Finding]:
    """Yields whether the endpoint takes traces, logs and metrics; sends it empty requests."""
    if config.endpoint is None:
        yield Finding("endpoint", "warn", "exports nowhere", "set exporter.endpoint")
        return
    try:
        channel = open_channel(config)
    except ConfigError as error:
        yield Finding("endpoint", "fail", str(error), "see exporter.tls")
        return
    metadata = tuple((key.lower(), value) for key, value in config.headers.items()) or None
    try:
        for signal, service in _SERVICES.items():
            method = f"/opentelemetry.proto.collector.{service}/Export"
            finding = _handshake(channel.unary_unary(method), signal, config, metadata)
            yield finding
            if finding.state == "fail" and signal == "traces":
                return  # the others would say the same
    finally:
        channel.close()


def _handshake(call: Any, signal: str, config: ExporterConfig, metadata: Any) -> Finding:
    topic = f"endpoint for {signal}"
    try:
        call(b"", timeout=min(config.timeout, _PATIENCE_S), metadata=metadata)
    except grpc.RpcError as raised:
        error: Any = raised
        code: grpc.StatusCode = error.code()
        said = str(error.details())[:300]
        said = "".join(c if c.isprintable() else "?" for c in said)  # the peer's words
        detail = f"{config.endpoint}: {code.name}: {said}"
        # Traces are what it is about; a backend without logs or metrics is a choice.
        absent = signal != "traces" and code is grpc.StatusCode.UNIMPLEMENTED
        remedy = _REMEDIES.get(code, "see the endpoint's own log")
        return Finding(topic, "warn" if absent else "fail", detail, remedy)
    return Finding(topic, "ok", f"{config.endpoint} answers to OTLP {signal}")
