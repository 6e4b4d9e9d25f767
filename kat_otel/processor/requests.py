"""The requests that a step worked for, as its workers link to them."""

from __future__ import annotations

from typing import Final

import numpy as np
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from kat_otel.fields import REST
from kat_otel.spans import SpanKind, SpanTable

__all__ = ["requests_of"]

_REQUESTS: Final = 16
_RANKS: Final = 8
"""Worker steps that are read: all ranks of a step work for the same requests, but for those of
data parallelism."""


def requests_of(table: SpanTable) -> list[str]:
    """Returns the trace ids of the first 16 requests that the worker steps link to, as hex.

    A backend that shows a step's links does not find the step by them; what the root says of them
    it finds.
    """
    found: dict[str, None] = {}
    read = 0
    for row in np.flatnonzero(table.kind == SpanKind.WORKER_STEP).tolist():
        rest = table.attributes.get(row, {}).get(REST)
        if not isinstance(rest, bytes):
            continue
        for link in Span.FromString(rest).links:
            found[link.trace_id.hex()] = None
        read += 1
        if read == _RANKS or len(found) >= _REQUESTS:
            break
    return list(found)[:_REQUESTS]
