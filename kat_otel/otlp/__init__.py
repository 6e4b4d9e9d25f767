"""OTLP wire bytes to SpanTable and back. Nothing outside this folder knows the wire format."""

from __future__ import annotations

from kat_otel.otlp.decode import decode_traces, decode_traces_json
from kat_otel.otlp.encode import Request, encode_requests, encode_traces
from kat_otel.otlp.link import link_parents, parents_in_step
from kat_otel.otlp.rejected import Rejected

__all__ = [
    "Rejected",
    "Request",
    "decode_traces",
    "decode_traces_json",
    "encode_requests",
    "encode_traces",
    "link_parents",
    "parents_in_step",
]
