"""Which of several processors a worker asks: those that stand behind one name, one after the other.

All signals of an instance reach one processor, and a worker does not know which: whoever answers
says whether it is the one. A name with several addresses (a headless service of Kubernetes, say)
is read anew after each round, as processors come and go.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from kat_otel.instrumentation.sending.http_client import HttpClient

__all__ = ["Places", "addresses_of"]

_MOST: Final = 1_024
_PORTS: Final = {"https": 443}


def addresses_of(host: str, port: int) -> list[str]:
    """Returns the addresses of a name, of one family: that of which it has most.

    Raises:
        OSError: the name has none, or nobody can be asked for them.
    """
    found: dict[int, dict[str, None]] = {}
    for family, _, _, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        found.setdefault(family, {})[str(where[0])] = None
    return list(max(found.values(), key=len))[:_MOST] if found else []


class Places:
    """The client of the one that is asked now. Used by one thread.

    Args:
        url: of the control channel.
        ca_file: PEM file of the authority to trust; the system's if ``""``.
        resolve: gives the addresses of a host and port.
        shuffle: brings them into an order of this worker's own, so that not all begin alike.
    """

    def __init__(
        self,
        url: str,
        *,
        ca_file: str = "",
        resolve: Callable[[str, int], list[str]] = addresses_of,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        self._url = url
        self._ca_file = ca_file
        self._resolve = resolve
        self._shuffle = shuffle
        self._left: list[str] = []
        self._address = ""
        self._client: HttpClient | None = None

    @property
    def client(self) -> HttpClient:
        """Posts to the processor that is asked now."""
        return self._client or self._turn_to(self._next())

    def go_on(self) -> None:
        """Asks the next one from now on; with one address it is the same, over its connection."""
        address = self._next()
        if self._client is None or address != self._address:
            self.close()
            self._turn_to(address)

    def close(self) -> None:
        """Closes the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _turn_to(self, address: str) -> HttpClient:
        self._address = address
        self._client = HttpClient(self._url, ca_file=self._ca_file, address=address)
        return self._client

    def _next(self) -> str:
        if not self._left:
            self._left = self._read()
        return self._left.pop() if self._left else ""

    def _read(self) -> list[str]:
        try:
            url = urlsplit(self._url)
            found = self._resolve(url.hostname or "", url.port or _PORTS.get(url.scheme, 80))
        except (OSError, ValueError):
            return []  # whoever posts to the URL as it is hears what is wrong with it
        if len(found) < 2:
            return []  # one name in two families is one processor: the client tries both
        self._shuffle(found)
        return found
