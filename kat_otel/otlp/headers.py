"""Resources and scopes of a request: by the protobuf library, once per distinct bytes."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kat_otel.errors import DecodeError
from kat_otel.otlp.reference import header_problem_of, parse, resource_of
from kat_otel.spans import Resource
from kat_otel.wire import delimited

__all__ = ["Headers", "Scopes"]

_MOST: Final = 4_096
_LONGEST: Final = 16_384
_UNFOLDED: Final = 16 << 20
"""A resource stands once before many scopes: a small request may unfold to a large memory. So
much is read in any case, and four times the request."""


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
        self._known: dict[tuple[bytes, bytes, int | None], tuple[Resource, str]] = {}
        self._lock = threading.Lock()

    def resources(
        self, data: bytes, found: Scopes, max_attribute_bytes: int | None
    ) -> tuple[tuple[Resource, ...], dict[int, str]]:
        """Returns the resource of every scope, in order, and why the spans of which are refused.

        Raises:
            DecodeError: a header is malformed, or they are too much together.
        """
        pieces: defaultdict[int, list[bytes]] = defaultdict(list)
        for owner, begin, end in found.pieces.tolist():
            pieces[owner].append(data[begin - found.base : end - found.base])
        owned: defaultdict[int, bytes] = defaultdict(bytes)
        for owner, parts in pieces.items():
            owned[owner] = parts[0] if len(parts) == 1 else b"".join(parts)
        of_scope: list[int] = found.scopes[:-1, 1].tolist()
        met: dict[tuple[int, bytes], tuple[Resource, str]] = {}
        resources: list[Resource] = []
        problems: dict[int, str] = {}
        # No limit where the attributes have none: what a log holds was within it once.
        room = math.inf if max_attribute_bytes is None else _UNFOLDED + 4 * len(data)
        bare = set(range(found.resource_count)).difference(of_scope)
        for scope, resource in enumerate([*of_scope, *bare]):
            own = owned[scope] if scope < len(of_scope) else b""
            known = met.get((resource, own))
            if known is None:
                header = owned[~resource]
                room -= len(header) + len(own)  # known or not: the answer depends on nothing else
                if room < 0:
                    raise DecodeError(
                        f"request of {len(data):,} bytes: its resources, said anew for each of "
                        "their scopes, are too large"
                    )
                known = self._known.get((header, own, max_attribute_bytes))
                if known is None:
                    known = self._read(header, own, max_attribute_bytes)
                met[resource, own] = known
            resources.append(known[0])
            if known[1]:
                problems[scope] = known[1]
        return tuple(resources[: len(of_scope)]), problems

    def _read(self, header: bytes, scope: bytes, most: int | None) -> tuple[Resource, str]:
        # As deep in the message as it was found: the library counts levels.
        message = delimited(b"\x0a", header + delimited(b"\x12", scope))
        (resource_spans,) = parse(message).resource_spans
        scope_spans = resource_spans.scope_spans[0]
        problem = header_problem_of(resource_spans, scope_spans, most)
        resource = Resource() if problem else resource_of(resource_spans, scope_spans)
        if len(header) + len(scope) <= _LONGEST:
            with self._lock:
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[header, scope, most] = resource, problem
        return resource, problem
