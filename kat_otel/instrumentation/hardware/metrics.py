"""Measures to OTLP bytes: an ExportMetricsServiceRequest packed by hand, without protobuf.

A few hundred points a second, so plain Python packs them; what the wire needs is in the few
functions at the end. Field numbers: opentelemetry-proto 1.x, ``metrics.proto``, ``common.proto``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from kat_otel import semconv
from kat_otel.spans import AttributeValue

__all__ = ["Kind", "Measure", "pack_metrics"]

Kind = Literal["gauge", "sum"]
"""``gauge`` a value of now; ``sum`` a total that only grows, cumulative since its start."""

_CUMULATIVE: Final = 2  # AGGREGATION_TEMPORALITY_CUMULATIVE
_NO_ATTRIBUTES: Final[Mapping[str, str | int]] = {}


class Measure(NamedTuple):
    """One point of one series.

    Attributes:
        name: of the metric.
        value: an integer leaves as one, exactly; anything else as a double.
        attributes: what tells the series of a metric apart; never a raw kernel name.
        kind: what the value is.
        unit: UCUM, as OpenTelemetry writes it.
        time_ns: when it was measured, Unix ns; 0: at the time of the request.
        start_ns: since when a sum counts, Unix ns; 0: since the request's start.
    """

    name: str
    value: float
    attributes: Mapping[str, str | int] = _NO_ATTRIBUTES
    kind: Kind = "gauge"
    unit: str = ""
    time_ns: int = 0
    start_ns: int = 0


def pack_metrics(
    groups: Iterable[tuple[Mapping[str, AttributeValue], Sequence[Measure]]],
    *,
    start_ns: int,
    now_ns: int,
) -> bytes:
    """Returns the bytes of an ExportMetricsServiceRequest; ``b""`` if there is no point at all.

    Args:
        groups: resource attributes, and what is said of that resource. Measures of one name in
            one group must be of one kind and unit: the first says which.
        start_ns: since when sums count that do not say it, Unix ns.
        now_ns: time of the points that do not say it, Unix ns.
    """
    out: list[bytes] = []
    for resource, measures in groups:
        if measures:
            scope = _field(1, _text(1, semconv.SCOPE_NAME))
            metrics = b"".join(_metrics(measures, start_ns, now_ns))
            said = b"".join(_attribute(1, key, value) for key, value in resource.items())
            group = _field(1, said) + _field(2, scope + metrics) + _text(3, semconv.SCHEMA_URL)
            out.append(_field(1, group))
    return b"".join(out)


def _metrics(measures: Sequence[Measure], start_ns: int, now_ns: int) -> Iterable[bytes]:
    named: dict[str, list[Measure]] = {}
    for measure in measures:
        named.setdefault(measure.name, []).append(measure)
    for name, points in named.items():
        first = points[0]
        head = _text(1, name) + (_text(3, first.unit) if first.unit else b"")
        data = b"".join(_field(1, _point(p, start_ns, now_ns)) for p in points)
        if first.kind == "gauge":
            yield _field(2, head + _field(5, data))
        else:
            yield _field(2, head + _field(7, data + b"\x10%c\x18\x01" % _CUMULATIVE))


def _point(measure: Measure, start_ns: int, now_ns: int) -> bytes:
    start = (measure.start_ns or start_ns) if measure.kind == "sum" else 0
    times = struct.pack("<BQBQ", 0x11, start, 0x19, measure.time_ns or now_ns)
    value = measure.value
    if isinstance(value, int):
        number = struct.pack("<Bq", 0x31, max(-(2**63), min(value, 2**63 - 1)))
    else:
        number = struct.pack("<Bd", 0x21, value)
    said = b"".join(_attribute(7, key, text) for key, text in measure.attributes.items())
    return times + number + said


# --- the wire ------------------------------------------------------------------------------


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number >= 0x80:
        groups.append((number & 0x7F) | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _text(number: int, text: str) -> bytes:
    # A lone surrogate cannot be written as UTF-8; it is shown instead of refused.
    return _field(number, text.encode("utf-8", "backslashreplace"))


def _attribute(number: int, key: str, value: AttributeValue) -> bytes:
    return _field(number, _text(1, key) + _field(2, _any(value)))


def _any(value: AttributeValue) -> bytes:
    if isinstance(value, str):
        return _text(1, value)
    if isinstance(value, bool):
        return b"\x10%c" % value
    if isinstance(value, int):
        return b"\x18" + _varint(value & (2**64 - 1))
    if isinstance(value, float):
        return struct.pack("<Bd", 0x21, value)
    return _field(7, value)
