"""One URL to post to: answers are bounded in bytes and time, redirects are not followed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3

from kat_otel.errors import UnreachableError

__all__ = ["Answer", "HttpClient"]

_MAX_ANSWER: Final = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Attributes:
        status: HTTP's.
        headers: names in lower case.
        body: at most 64 KiB of it.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


class HttpClient:
    """Posts to one URL over a connection that is kept. Used by one thread.

    Args:
        url: http or https.
        ca_file, cert_file, key_file: PEM files; ``""`` for the system's and none.
        address: asked in the place of the URL's host; a certificate must show the host all the
            same.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
        address: str = "",
    ) -> None:
        self._url, self._host, name = _at(url, address)
        self._pool = urllib3.PoolManager(
            num_pools=1,
            maxsize=1,
            retries=False,
            ca_certs=ca_file or None,
            cert_file=cert_file or None,
            key_file=key_file or None,
            server_hostname=name or None,
        )

    def post(
        self, parts: Sequence[bytes | memoryview], headers: Mapping[str, str], timeout: float
    ) -> Answer:
        """Sends one request and returns its answer.

        Args:
            parts: the body, sent one after the other.
            headers: beside the body's length.
            timeout: seconds for all of it; no wait for the network is longer.

        Raises:
            UnreachableError: there was no whole answer in time.
        """
        deadline = time.monotonic() + timeout
        own = {"content-length": str(sum(map(len, parts))), "user-agent": "kat-otel"}
        if self._host:
            own["host"] = self._host
        body: Any = parts  # urllib3 takes any iterable of buffers, its types say bytes
        try:
            response = self._pool.request(
                "POST",
                self._url,
                body=body,
                headers={**headers, **own},
                timeout=urllib3.Timeout(total=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                data = _bounded(response, deadline)
            finally:
                response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # ValueError: a header or a status line that http.client cannot take.
            raise UnreachableError(f"{self._url}: {type(error).__name__}: {error}") from error
        return Answer(
            response.status, {key.lower(): value for key, value in response.headers.items()}, data
        )

    def close(self) -> None:
        """Closes the connection."""
        self._pool.clear()


def _at(url: str, address: str) -> tuple[str, str, str]:
    """Returns the URL at an address, the host it was of, and the name for its certificate."""
    if not address:
        return url, "", ""
    said = urlsplit(url)
    host = f"[{address}]" if ":" in address else address
    port = "" if said.port is None else f":{said.port}"
    name = (said.hostname or "") if said.scheme == "https" else ""
    return said._replace(netloc=host + port).geturl(), said.netloc, name


def _bounded(response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """Returns the answer's body; what is too long or too late costs the connection."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(8_192):
        parts.append(part)
        size += len(part)
        if size > _MAX_ANSWER or time.monotonic() > deadline:
            response.close()
            raise urllib3.exceptions.HTTPError(
                f"an answer of more than {_MAX_ANSWER} bytes, or that does not end"
            )
    return b"".join(parts)
