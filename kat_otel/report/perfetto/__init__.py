"""The recording and its verdict as a trace for Perfetto's user interface.

Perfetto's own protobuf form and not Chrome's JSON: it keeps nanoseconds, its flows belong to
spans by id and not by where they lie, tracks have an order, and it takes a fifth of the bytes.
"""

from kat_otel.report.perfetto.write import write_perfetto

__all__ = ["write_perfetto"]
