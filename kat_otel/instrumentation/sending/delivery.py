"""How one request is delivered, by HTTP or gRPC, and what its outcome means.

Which answers are worth another try is OTLP's to say
(https://opentelemetry.io/docs/specs/otlp/#failures).
"""

from __future__ import annotations

import datetime as dt
import importlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlsplit

from kat_otel.errors import DecodeError, UnreachableError
from kat_otel.instrumentation.sending.endpoints import Endpoint, Signal
from kat_otel.instrumentation.sending.http_client import HttpClient
from kat_otel.instrumentation.sending.pack import Buffer
from kat_otel.wire import read_fields

__all__ = ["Delivery", "GrpcDelivery", "HttpDelivery", "Outcome"]

_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_GRPC_RETRYABLE: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
_MOST_WAIT_S: Final = 60.0
_METHODS: Final[dict[Signal, str]] = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request.

    Attributes:
        fate: taken; later: to be sent again; never: it would be refused again.
        reason: a short word to count by, ``""`` if all was taken.
        delay: seconds that the server asks to wait; 0 if it does not say.
        rejected: items of a taken request that were not.
        message: the server's, for the log.
    """

    fate: Literal["taken", "later", "never"]
    reason: str = ""
    delay: float = 0.0
    rejected: int = 0
    message: str = ""


class Delivery(Protocol):
    """A way to one endpoint; used by one thread."""

    def send(self, parts: Sequence[Buffer], timeout: float) -> Outcome:
        """Sends one request, in at most ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """Gives back the connection."""
        ...


class HttpDelivery:
    """OTLP over HTTP, in protobuf."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._client = HttpClient(
            endpoint.url,
            ca_file=endpoint.ca_file,
            cert_file=endpoint.cert_file,
            key_file=endpoint.key_file,
        )
        self._headers = {**endpoint.headers, "content-type": "application/x-protobuf"}
        if endpoint.gzip:
            self._headers["content-encoding"] = "gzip"

    def send(self, parts: Sequence[Buffer], timeout: float) -> Outcome:
        """Sends one request."""
        if self._endpoint.gzip:
            parts = _compressed(parts)
        try:
            timeout = min(timeout, self._endpoint.timeout)
            answer = self._client.post(parts, self._headers, timeout)
        except UnreachableError as error:
            return Outcome("later", "unreachable", message=str(error))
        if 200 <= answer.status < 300:
            return _taken(answer.body)
        message = answer.body[:200].decode("utf-8", "replace")
        reason = f"http_{answer.status}"
        if answer.status in _RETRYABLE:
            delay = _retry_after(answer.headers.get("retry-after", ""))
            return Outcome("later", reason, delay, message=message)
        return Outcome("never", reason, message=message)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


class GrpcDelivery:
    """OTLP over gRPC: only where grpcio is installed, and outside of the inference server.

    Raises:
        ImportError: grpcio is not installed.
    """

    def __init__(self, endpoint: Endpoint, signal: Signal) -> None:
        # Not an import statement: workers must not depend on it, nor load it without being told.
        grpc: Any = importlib.import_module("grpc")
        self._errors = grpc.RpcError
        self._timeout = endpoint.timeout
        self._metadata = tuple(endpoint.headers.items())
        url = urlsplit(endpoint.url)
        target = f"{url.hostname if ':' not in (url.hostname or '') else f'[{url.hostname}]'}"
        target += f":{url.port or 4317}"
        compression = grpc.Compression.Gzip if endpoint.gzip else None
        if url.scheme == "https":
            files = (endpoint.ca_file, endpoint.key_file, endpoint.cert_file)
            given = [Path(name).read_bytes() if name else None for name in files]
            credentials = grpc.ssl_channel_credentials(*given)
            self._channel = grpc.secure_channel(target, credentials, compression=compression)
        else:
            self._channel = grpc.insecure_channel(target, compression=compression)
        self._call = self._channel.unary_unary(_METHODS[signal])

    def send(self, parts: Sequence[Buffer], timeout: float) -> Outcome:
        """Sends one request."""
        try:
            timeout = min(timeout, self._timeout)
            answer = self._call(b"".join(parts), timeout=timeout, metadata=self._metadata)
        except self._errors as error:
            failed: Any = error
            code = str(failed.code().name)
            fate: Literal["later", "never"] = "later" if code in _GRPC_RETRYABLE else "never"
            return Outcome(fate, f"grpc_{code.lower()}", message=str(failed.details())[:200])
        return _taken(answer)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()


def _compressed(parts: Sequence[Buffer]) -> list[Buffer]:
    gzip = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return [*(gzip.compress(part) for part in parts), gzip.flush()]


def _taken(answer: bytes) -> Outcome:
    """Reads an Export...ServiceResponse: partial_success = {rejected = 1, error_message = 2}."""
    try:
        partial = dict(read_fields(answer)).get((1, 2), b"")
        said = dict(read_fields(partial if isinstance(partial, bytes) else b""))
    except DecodeError:
        return Outcome("taken", "odd_answer")  # it was taken: the status says so
    rejected, message = said.get((1, 0), 0), said.get((2, 2), b"")
    text = message[:200].decode("utf-8", "replace") if isinstance(message, bytes) else ""
    count = rejected if isinstance(rejected, int) and rejected < 2**31 else 0
    return Outcome("taken", "rejected" if count else "", rejected=count, message=text)


def _retry_after(text: str) -> float:
    """Returns seconds from ``Retry-After``, which may be seconds or a date; 0 if it is neither."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            now = dt.datetime.now(dt.UTC)
            seconds = (parsedate_to_datetime(text) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(0.0, seconds), _MOST_WAIT_S) if math.isfinite(seconds) else 0.0
