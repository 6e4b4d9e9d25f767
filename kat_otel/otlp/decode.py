"""OTLP trace requests to columns, at the speed of memory: what the receiver and the files call.

Two compiled passes over the bytes (:mod:`kat_otel.otlp.scan` finds the spans,
:mod:`kat_otel.otlp.walk` reads them), then the protobuf library for what is unusual. Parents
are not linked: the rest of a tree may stand in another request. Whoever holds the whole calls
:func:`~kat_otel.otlp.link.link_parents`.
"""

from __future__ import annotations

import threading
from typing import Final

from kat_otel.errors import DecodeError
from kat_otel.otlp import reference
from kat_otel.otlp.json_form import request_from_json
from kat_otel.otlp.rejected import Rejected
from kat_otel.spans import SpanTable, StringTable

__all__ = ["decode_traces", "decode_traces_json"]

_MAX_BYTES: Final = 2**31 - 1  # of a protobuf message
_loading = threading.Lock()


def decode_traces(
    data: bytes,
    *,
    rejected: Rejected | None = None,
    strings: StringTable | None = None,
    max_attribute_bytes: int | None = None,
) -> SpanTable:
    """Decodes an ExportTraceServiceRequest or TracesData message. Safe in several threads.

    Args:
        data: the message's wire bytes.
        rejected: takes the count of single bad spans (ids of a wrong length or zero, times after
            the year 2262, attributes that are too long), which are left out; without it such a
            span refuses the request.
        strings: takes the texts; a new table if None. Tables that share one are joined without
            another look at a text (see :class:`~kat_otel.otlp.intern.SharedStrings`).
        max_attribute_bytes: longest name, text or bytes of one attribute; no limit if None.

    Returns:
        The spans in the request's order; ``parent`` is NO_PARENT, see
        :func:`~kat_otel.otlp.link.link_parents`.

    Raises:
        DecodeError: the bytes are not such a message; sending them again cannot succeed.
    """
    if len(data) > _MAX_BYTES:
        raise DecodeError(f"request of {len(data):,} bytes: not an OTLP trace message (too long)")
    with _loading:  # loads or compiles the walker, once; costs nothing afterwards
        from kat_otel.otlp import request  # noqa: PLC0415 - Numba takes a third of a second
    strings = StringTable() if strings is None else strings
    return request.decode(data, rejected, strings, max_attribute_bytes)


def decode_traces_json(
    data: bytes,
    *,
    rejected: Rejected | None = None,
    strings: StringTable | None = None,
    max_attribute_bytes: int | None = None,
) -> SpanTable:
    """Decodes the JSON form of the same messages: ids in hex, 64-bit integers as strings.

    Enumerations may be names or numbers, unknown keys are skipped, as OTLP demands.

    Raises:
        DecodeError: not such a document; the message says where.
    """
    return reference.table_of(request_from_json(data), rejected, strings, max_attribute_bytes)
