"""OTLP wire bytes to SpanTable and back. Nothing outside this folder knows the wire format."""

from __future__ import annotations

from kat_otel.otlp.decode import Rejected, decode_traces, decode_traces_json
from kat_otel.otlp.link import link_parents

__all__ = ["Rejected", "decode_traces", "decode_traces_json", "link_parents"]
