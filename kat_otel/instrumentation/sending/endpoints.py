"""Where telemetry goes: OpenTelemetry's environment variables of the OTLP exporter.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/ says what they mean. A value that
makes no sense is named in a log line and left out: a worker starts whatever stands there.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

__all__ = ["Endpoint", "Protocol", "Signal"]

logger: Final = logging.getLogger(__name__)

Signal = Literal["traces", "metrics"]
Protocol = Literal["http/protobuf", "grpc"]

_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_DEFAULT: Final = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}
_DEFAULT_TIMEOUT_S: Final = 10.0
_MILLISECONDS_FROM: Final = 250.0
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests of one signal go.

    Attributes:
        url: of the request (HTTP) or the server (gRPC).
        protocol: how.
        headers: to send along; may hold secrets.
        timeout: of a request, seconds.
        gzip: whether to compress.
        ca_file, cert_file, key_file: PEM files; ``""`` for the system's and none.
    """

    url: str
    protocol: Protocol = "http/protobuf"
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    timeout: float = _DEFAULT_TIMEOUT_S
    gzip: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @staticmethod
    def read(environment: Mapping[str, str], signal: Signal) -> Endpoint:
        """Returns the endpoint of a signal; variables of the signal go before those of all."""

        def said(name: str) -> str:
            own = environment.get(f"{_PREFIX}{signal.upper()}_{name}", "").strip()
            return own or environment.get(_PREFIX + name, "").strip()

        own_url = environment.get(f"{_PREFIX}{signal.upper()}_ENDPOINT", "").strip()
        protocol = _protocol(said("PROTOCOL"))
        return Endpoint(
            _url(own_url, environment.get(f"{_PREFIX}ENDPOINT", "").strip(), protocol, signal),
            protocol,
            _headers(said("HEADERS")),
            _timeout(said("TIMEOUT")),
            _gzip(said("COMPRESSION")),
            said("CERTIFICATE"),
            said("CLIENT_CERTIFICATE"),
            said("CLIENT_KEY"),
        )


def _protocol(text: str) -> Protocol:
    if text == "grpc":
        return "grpc"
    if text not in ("", "http/protobuf"):
        logger.warning("%sPROTOCOL=%s is not spoken: http/protobuf is taken", _PREFIX, text)
    return "http/protobuf"


def _url(own: str, base: str, protocol: Protocol, signal: Signal) -> str:
    """Returns the URL: a signal's own is taken as it is, the base one gets the signal's path."""
    for text in (own, base):
        if not text:
            continue
        url = text if "://" in text else f"http://{text}"
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            logger.warning("%r is no http or https address: it is left out", text)
        elif protocol == "grpc" or text is own:
            return url
        else:
            return f"{url.rstrip('/')}/v1/{signal}"
    default = _DEFAULT[protocol]
    return default if protocol == "grpc" else f"{default}/v1/{signal}"


def _headers(text: str) -> dict[str, str]:
    """Returns headers from ``name=value,name=value``, values in URL encoding."""
    headers: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        name, value = unquote(name).strip().lower(), unquote(value).strip()
        if equals and _NAME.fullmatch(name) and _VALUE.fullmatch(value):
            headers[name] = value
        else:  # the value may be a secret
            logger.warning("%sHEADERS: %r and its value are no header: left out", _PREFIX, name)
    return headers


def _timeout(text: str) -> float:
    """Returns seconds.

    The specification says milliseconds, OpenTelemetry's SDK for Python reads seconds: numbers of
    250 and more are milliseconds, smaller ones seconds.
    """
    try:
        value = float(text) if text else _DEFAULT_TIMEOUT_S
    except ValueError:
        value = -1.0
    if not 0 < value < 1e7:
        logger.warning("%sTIMEOUT=%s is no time: 10 s are taken", _PREFIX, text)
        return _DEFAULT_TIMEOUT_S
    return value / 1e3 if value >= _MILLISECONDS_FROM else value


def _gzip(text: str) -> bool:
    if text not in {"", "none", "gzip"}:
        logger.warning("%sCOMPRESSION=%s is not known: none is taken", _PREFIX, text)
    return text == "gzip"
