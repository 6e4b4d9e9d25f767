"""gRPC connections and listening ports, plain or with TLS."""

from __future__ import annotations

from typing import Any

import grpc

from kat_otel.config import Endpoint, ExporterConfig, ReceiverConfig, on_loopback
from kat_otel.errors import ConfigError
from kat_otel.processor.listen import read_pem, server_context

__all__ = ["listen", "open_channel"]


def open_channel(config: ExporterConfig) -> Any:
    """Returns the connection to the exporter's endpoint; it connects when first used.

    Raises:
        ConfigError: a certificate file cannot be read.
    """
    endpoint = config.endpoint
    if endpoint is None:
        raise ValueError("no endpoint to connect to")
    compression = grpc.Compression.Gzip if config.compression == "gzip" else None
    tls = config.tls
    if tls.insecure or (tls.insecure is None and on_loopback(endpoint)):
        return grpc.insecure_channel(endpoint, compression=compression)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca_file, "exporter.tls.ca_file"),
        private_key=_read(tls.key_file, "exporter.tls.key_file"),
        certificate_chain=_read(tls.cert_file, "exporter.tls.cert_file"),
    )
    return grpc.secure_channel(endpoint, credentials, compression=compression)


def listen(server: grpc.Server, config: ReceiverConfig) -> int:
    """Binds the server to its endpoint and returns the port.

    Raises:
        ConfigError: the endpoint is taken or not ours, or a certificate file cannot be read.
    """
    endpoint: Endpoint = config.endpoint
    try:
        if config.tls is None:
            return server.add_insecure_port(endpoint)
        # gRPC says nothing about unusable files until the first handshake fails.
        server_context(config.tls, "receiver.tls")
        pair = (
            _read(config.tls.key_file, "receiver.tls.key_file"),
            _read(config.tls.cert_file, "receiver.tls.cert_file"),
        )
        clients = _read(config.tls.client_ca_file, "receiver.tls.client_ca_file")
        credentials = grpc.ssl_server_credentials([pair], clients, clients is not None)
        return server.add_secure_port(endpoint, credentials)
    except RuntimeError as error:
        raise ConfigError(
            f"receiver.endpoint {endpoint}: cannot listen there ({error}) — is another "
            "process on that port? Set another one, or port 0 for any free one"
        ) from error


def _read(path: str | None, key: str) -> Any:
    return None if path is None else read_pem(path, key)
