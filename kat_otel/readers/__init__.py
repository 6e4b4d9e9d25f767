"""Readers: trace files -> :class:`~kat_otel.spans.SpanTable`. Read ``reading.py`` first."""

from kat_otel.readers.reading import ReadResult, read

__all__ = ["ReadResult", "read"]
