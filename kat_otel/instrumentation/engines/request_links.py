"""Which requests a step works for: W3C trace contexts, kept by the engine's request id.

A slow request leads to its steps through the span that called the server: steps link to it. The
server's own span of the request is made when the request has ended, so its id cannot be known
here; it is a child of the same caller, in the same trace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

__all__ = ["LINKS", "REQUESTS", "Requests", "parse_traceparent"]

LINKS: Final = 16
"""Links of one step, at most."""

REQUESTS: Final = 4_096
"""Requests kept, at most; the oldest goes first."""

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_LONGEST: Final = 256
_ZERO: Final = ("0" * 32, "0" * 16)


def parse_traceparent(headers: Any) -> tuple[str, str] | None:
    """Returns trace and span id of headers, whatever their case; None without valid ones."""
    if not isinstance(headers, Mapping):
        return None
    for key, value in cast(Mapping[Any, Any], headers).items():
        if isinstance(key, str) and key.lower() == "traceparent" and isinstance(value, str):
            found = _TRACEPARENT.fullmatch(value.strip()) if len(value) <= _LONGEST else None
            if found is None or value[:2] == "ff" or found[1] == _ZERO[0] or found[2] == _ZERO[1]:
                return None
            return found[1], found[2]
    return None


class Requests:
    """The trace contexts of running requests."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, request: str, pair: tuple[str, str] | None) -> None:
        """Keeps the context of a request."""
        if pair is None:
            return
        if len(self._known) >= REQUESTS:
            self._known.pop(next(iter(self._known)))
        self._known[request] = pair

    def forget(self, requests: Iterable[str]) -> None:
        """Lets go of requests that have ended."""
        for request in requests:
            self._known.pop(request, None)

    def of(self, requests: Iterable[str]) -> tuple[tuple[str, str], ...]:
        """Returns the contexts of the first :data:`LINKS` requests that have one, each once."""
        found: dict[tuple[str, str], None] = {}
        for request in requests:
            pair = self._known.get(request)
            if pair is not None:
                found[pair] = None
                if len(found) == LINKS:
                    break
        return tuple(found)
