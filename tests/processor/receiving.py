"""A receiver of both kinds over real sockets, senders for it, and certificates."""

from __future__ import annotations

import gzip
import http.client
import shutil
import ssl
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from kat_otel.config import ReceiverConfig, ServerTlsConfig
from kat_otel.processor.http_receiver import HttpReceiver
from kat_otel.processor.ingest import Ingest
from kat_otel.processor.intake import Batch, Intake
from kat_otel.processor.receiver import Receiver
from kat_otel.processor.retry_info import DETAILS_KEY, read_retry_delay
from kat_otel.telemetry import Books

METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
PACK = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


def a_log(text: str = "NVRM: Xid (PCI:0000:3b:00): 63") -> bytes:
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.body.string_value = text
    return request.SerializeToString()


def a_metric(value: float = 61.0) -> bytes:
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="hw.temperature")
    metric.gauge.data_points.add(as_double=value)
    return request.SerializeToString()


class Receivers:
    """Both servers over one intake that nobody empties but :meth:`taken`.

    A context manager; ``settings`` are the receiver's, ``http`` those of HTTP only.
    """

    def __init__(self, *, log=None, http=None, **settings) -> None:
        config = ReceiverConfig(
            **{"endpoint": "127.0.0.1:0"} | settings,
            http={"endpoint": "127.0.0.1:0"} | (http or {}),
        )
        self.books = Books()
        self.intake = Intake(config.queue_size_mib * 2**20)
        self.ingest = Ingest(config, self.intake, self.books, log=log)
        self.grpc = Receiver(config, self.ingest)
        self.http = HttpReceiver(config, self.ingest)

    def taken(self) -> list[Batch]:
        """What is queued, taken out."""
        found = []
        while not self.intake.empty:
            found.append(self.intake.take(0))
            self.intake.done(found[-1])
        return found

    def __enter__(self):
        self.grpc.start()
        self.http.start()
        return self

    def __exit__(self, *error) -> None:
        self.http.stop(2)
        self.grpc.stop(0)


@dataclass(frozen=True)
class Told:
    """What a sender was told, in one form for both protocols.

    ``outcome`` is what it makes a sender do: taken, never (drop it), later (send it again),
    denied, or unreachable (no connection).
    """

    outcome: str
    status: object = None
    message: str = ""
    delay: float | None = None


_GRPC = {
    grpc.StatusCode.INVALID_ARGUMENT: "never",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "never",
    grpc.StatusCode.UNIMPLEMENTED: "never",
    grpc.StatusCode.INTERNAL: "never",
    grpc.StatusCode.UNKNOWN: "never",
    grpc.StatusCode.UNAUTHENTICATED: "denied",
    grpc.StatusCode.UNAVAILABLE: "later",
}


def by_grpc(port, data, *, signal="traces", encoding="identity", token=None, tls=None) -> Told:
    target = f"localhost:{port}" if tls else f"127.0.0.1:{port}"
    channel = grpc.secure_channel(target, tls.grpc()) if tls else grpc.insecure_channel(target)
    how = {
        "identity": grpc.Compression.NoCompression,
        "gzip": grpc.Compression.Gzip,
        "deflate": grpc.Compression.Deflate,
    }[encoding]
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    with channel:
        call = channel.unary_unary(METHODS[signal])
        try:
            call(data, timeout=20, compression=how, metadata=metadata)
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata() or ()).get(DETAILS_KEY)
            said = str(error.details())
            if "failed to connect" in said or "Handshake" in said or "Socket closed" in said:
                return Told("unreachable", error.code(), said)
            delay = None if details is None else read_retry_delay(details)
            return Told(_GRPC[error.code()], error.code(), said, delay)
    return Told("taken")


def by_http(
    port, data, *, signal="traces", encoding="identity", token=None, tls=None, headers=PROTOBUF
) -> Told:
    if tls:
        connection = http.client.HTTPSConnection(
            "localhost", port, timeout=20, context=tls.context()
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = dict(headers)
    if encoding != "identity":
        headers["content-encoding"] = encoding
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    try:
        connection.request("POST", f"/v1/{signal}", PACK[encoding](data), headers)
        response = connection.getresponse()
        said = response.read().decode(errors="replace")
    except (ssl.SSLError, ConnectionError) as error:
        return Told("unreachable", type(error), str(error))
    finally:
        connection.close()
    delay = response.headers.get("retry-after")
    outcome = {200: "taken", 401: "denied", 429: "later", 503: "later"}.get(
        response.status, "never"
    )
    return Told(outcome, response.status, said, None if delay is None else float(delay))


@dataclass(frozen=True)
class Client:
    """Whom a sender trusts, and the certificate it shows."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    def grpc(self) -> grpc.ChannelCredentials:
        key = self.key.read_bytes() if self.key else None
        chain = self.certificate.read_bytes() if self.certificate else None
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), key, chain)

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.certificate:
            context.load_cert_chain(self.certificate, self.key)
        return context


class Pki:
    """An authority with a server's and a client's certificate, and a stranger with his own.

    Args:
        folder: where the files are.
        names: what the certificates are good for, as openssl writes it.
    """

    def __init__(self, folder: Path, names: str = "DNS:localhost,IP:127.0.0.1") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl to make certificates with: apt-get install openssl")
        self._folder = folder
        self._names = names
        self.ca = self._self_signed("ca")
        stranger_ca = self._self_signed("stranger-ca")
        self.server = self._signed("server", self.ca)
        self.client = self._signed("client", self.ca)
        self.stranger = self._signed("stranger", stranger_ca)

    def tls(self, *, mutual: bool = False) -> ServerTlsConfig:
        certificate, key = self.server
        return ServerTlsConfig(
            cert_file=str(certificate),
            key_file=str(key),
            client_ca_file=str(self.ca[0]) if mutual else None,
        )

    def caller(self, who: tuple[Path, Path] | None = None) -> Client:
        return Client(self.ca[0], *(who or (None, None)))

    def _self_signed(self, name: str) -> tuple[Path, Path]:
        certificate, key = self._paths(name)
        self._openssl(
            *("req", "-x509", *_KEY, "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", key, "-out", certificate),
        )
        return certificate, key

    def _signed(self, name: str, authority: tuple[Path, Path]) -> tuple[Path, Path]:
        certificate, key = self._paths(name)
        request, names = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        names.write_text(f"subjectAltName={self._names}\n")
        self._openssl(
            *("req", *_KEY, "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        )
        self._openssl(
            *("x509", "-req", "-in", request, "-days", "2", "-extfile", names, "-out", certificate),
            *("-CA", authority[0], "-CAkey", authority[1], "-CAcreateserial"),
        )
        return certificate, key

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self._folder / f"{name}.pem", self._folder / f"{name}.key"

    @staticmethod
    def _openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
