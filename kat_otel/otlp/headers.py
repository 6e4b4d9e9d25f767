"""Resources and scopes of a request: by the protobuf library, once per distinct bytes."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.otlp.reference import parse, resource_of
from kat_otel.otlp.wire import delimited
from kat_otel.spans import Resource

__all__ = ["Headers", "Scopes"]

_MOST: Final = 4_096
_LONGEST: Final = 16_384


@dataclass(slots=True)
class Scopes:
    """Where things lie in a request; all places are addresses.

    Attributes:
        base: of the request's first byte.
        spans: begin and end of every span, int64 ``(n, 2)``.
        scopes: first span and resource_spans of every scope, int64 ``(s + 1, 2)``; the last row
            has the number of spans.
        pieces: stretches of headers, int64 ``(p, 3)``: owner (a scope, or ~resource_spans),
            begin, end.
        resource_count: how many resource_spans there are.
    """

    base: int
    spans: NDArray[np.int64]
    scopes: NDArray[np.int64]
    pieces: NDArray[np.int64]
    resource_count: int


class Headers:
    """Remembers the resources of recent requests: workers say the same with every batch."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], Resource] = {}
        self._lock = threading.Lock()

    def resources(self, data: bytes, found: Scopes) -> tuple[Resource, ...]:
        """Returns the resource of every scope, in order.

        Raises:
            DecodeError: a header is malformed.
        """
        owned: defaultdict[int, bytes] = defaultdict(bytes)
        for owner, begin, end in found.pieces.tolist():
            owned[owner] += data[begin - found.base : end - found.base]
        of_scope: list[int] = found.scopes[:-1, 1].tolist()
        for bare in set(range(found.resource_count)).difference(of_scope):
            self._resource(owned[~bare], b"")
        return tuple(
            self._resource(owned[~resource], owned[scope])
            for scope, resource in enumerate(of_scope)
        )

    def _resource(self, header: bytes, scope: bytes) -> Resource:
        resource = self._known.get((header, scope))
        if resource is None:
            # As deep in the message as it was found: the library counts levels.
            message = delimited(b"\x0a", header + delimited(b"\x12", scope))
            (resource_spans,) = parse(message).resource_spans
            resource = resource_of(resource_spans, resource_spans.scope_spans[0])
            if len(header) + len(scope) <= _LONGEST:
                with self._lock:
                    if len(self._known) >= _MOST:
                        self._known.clear()
                    self._known[header, scope] = resource
        return resource
