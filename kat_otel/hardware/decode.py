"""OTLP metrics and logs to points and signs; what names no known signal is skipped unread."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from kat_otel import semconv
from kat_otel.hardware.identity import device_key, pci_key
from kat_otel.hardware.log_patterns import gpu_alias, read_line
from kat_otel.hardware.metric_names import CLOCK_EVENT_BITS, METRICS, Metric
from kat_otel.hardware.readings import SIGNALS, Signal, clean_text
from kat_otel.hardware.series import Mode, SeriesKey
from kat_otel.spans import UNKNOWN

__all__ = ["Alias", "Point", "read_logs", "read_metrics"]

_DELTA: Final = 1  # AGGREGATION_TEMPORALITY_DELTA
_NO_VALUE: Final = 1  # DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
_LATEST_NS: Final = 2**62  # a time beyond it (the year 2116) is a broken clock
_TEXT: Final = 256
"""Longest name of a host, device or interface that is believed."""

_DEVICE: Final = ("hw.id", "UUID", "uuid", "gpu_uuid", "GPU_UUID")
_PCI: Final = ("pci_bus_id", "hw.pci.bus_id")
_HOST: Final = (semconv.HOST_NAME, "k8s.node.name", "Hostname", "hostname", "node", "nodename")
_VIRTUAL: Final = ("veth", "docker", "cni", "cali", "flannel", "br-", "virbr", "loop", "ram")
"""Interfaces and disks that no wire or spindle stands behind, by how their names begin."""
_MESSAGE: Final = ("MESSAGE", "message", "msg", "log", "body")
_INTRODUCTIONS: Final = frozenset({"nvidia_smi_gpu_info"})
"""Metrics that say nothing but which uuid has which PCI address."""


class Point(NamedTuple):
    """One point of one series."""

    key: SeriesKey
    mode: Mode
    time_ns: int
    value: float
    start_ns: int = 0
    text: str = ""


class Alias(NamedTuple):
    """A source said that this PCI address of this host is that GPU."""

    host: str
    pci: str
    device: str


class _Source(NamedTuple):
    """Who says it: from the resource."""

    said: Mapping[str, str]
    instance: str
    rank: int
    host: str
    device: str
    pci: str


def read_metrics(data: bytes, counts: Counter[str]) -> tuple[list[Point], set[Alias]]:
    """Returns the points of known metrics, and what was learnt of devices' names.

    Args:
        data: an ExportMetricsServiceRequest.
        counts: of what was skipped, by reason.
    """
    try:
        request = ExportMetricsServiceRequest.FromString(data)
    except DecodeError:  # refused by the receiver already; here it must not stop the judge
        counts["malformed"] += 1
        return [], set()
    points: list[Point] = []
    aliases: set[Alias] = set()
    for group in request.resource_metrics:
        source: _Source | None = None
        for scope in group.scope_metrics:
            for metric in scope.metrics:
                known = METRICS.get(metric.name)
                if known is None and metric.name not in _INTRODUCTIONS:
                    continue
                source = source or _source(_texts(group.resource.attributes))
                points += _merged(_points(metric, known or (), source, aliases, counts))
    return points, aliases


def read_logs(data: bytes, counts: Counter[str]) -> tuple[list[Point], set[Alias]]:
    """Returns the signs that lines of logs give; arguments as for :func:`read_metrics`."""
    try:
        request = ExportLogsServiceRequest.FromString(data)
    except DecodeError:
        counts["malformed"] += 1
        return [], set()
    points: list[Point] = []
    aliases: set[Alias] = set()
    for group in request.resource_logs:
        source: _Source | None = None
        for scope in group.scope_logs:
            for record in scope.log_records:
                line, fields = _line(record.body)
                if not line:
                    continue
                introduced, sign = gpu_alias(line), read_line(line)
                if introduced is None and sign is None:
                    continue
                source = source or _source(_texts(group.resource.attributes))
                said = _texts(record.attributes)
                host = source.host or _first(said, _HOST) or fields.get("_HOSTNAME", "")[:_TEXT]
                if introduced is not None:
                    aliases.add(Alias(host, introduced[0], device_key(introduced[1])))
                if sign is None:
                    continue
                time_ns = record.time_unix_nano or record.observed_time_unix_nano
                device = device_key(_first(said, _DEVICE)) or source.device
                pci = "" if device else sign.pci
                key = SeriesKey(
                    sign.signal, sign.detail, "log", source.instance, source.rank, host, device, pci
                )
                if 0 < time_ns < _LATEST_NS:
                    points.append(Point(key, "events", time_ns, 1.0, text=clean_text(line)))
                else:
                    counts["no time"] += 1
    return points, aliases


def _points(
    metric: Any,
    known: tuple[Metric, ...],
    source: _Source,
    aliases: set[Alias],
    counts: Counter[str],
) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    if kind not in {"gauge", "sum"}:
        counts["unsupported type"] += 1
        return
    delta = kind == "sum" and metric.sum.aggregation_temporality == _DELTA
    for point in getattr(metric, kind).data_points:
        said = _texts(point.attributes)
        host = source.host or _first(said, _HOST)
        device, pci = _device(said, source)
        if pci and device:
            aliases.add(Alias(host, pci, device))
        which = point.WhichOneof("value")
        value = float(getattr(point, which)) if which else math.nan
        odd = point.flags & _NO_VALUE or not math.isfinite(value)
        if odd or not 0 < point.time_unix_nano < _LATEST_NS:
            counts["no value or time"] += 1
            continue
        for entry in known:
            if all(said.get(k, source.said.get(k, "")) == v for k, v in entry.only.items()):
                detail = said.get(entry.detail, entry.detail) if entry.detail else ""
                if entry.detail == "device" and _virtual(detail):
                    break
                key = SeriesKey(
                    entry.signal,
                    detail,
                    metric.name,
                    source.instance,
                    source.rank,
                    host,
                    device,
                    "" if device else pci,
                )
                yield from _read(key, entry, point, value, delta=delta)
                break


def _read(
    key: SeriesKey, entry: Metric, point: Any, value: float, *, delta: bool
) -> Iterator[Point]:
    time_ns = int(point.time_unix_nano)
    if entry.kind == "bits":
        bits = int(value)
        on: dict[Signal, float] = {}
        for bit, signal in CLOCK_EVENT_BITS:
            on[signal] = max(on.get(signal, 0.0), float(bool(bits & bit)))
        for signal, flag in on.items():
            yield Point(key._replace(signal=signal), "level", time_ns, flag)
    elif entry.kind == "flag":
        yield Point(key, "level", time_ns, float(value > 0))
    elif entry.kind == "last_code":
        yield Point(key, "codes", time_ns, value)
    elif entry.kind == "seen_at":
        if 0 < value * 1e9 < _LATEST_NS:
            yield Point(key, "events", round(value * 1e9), 1.0)
    elif entry.kind == "counter":
        mode: Mode = "delta" if delta else "cumulative"
        start_ns = int(point.start_time_unix_nano)
        yield Point(key, mode, time_ns, value * entry.scale, min(start_ns, time_ns))
    else:
        yield Point(key, "level", time_ns, value * entry.scale)


def _merged(points: Iterable[Point]) -> Iterator[Point]:
    """Points of one request that fall together (one a CPU, one a direction) become one.

    Growth and shares of a host add up, of a GPU's flags the highest is taken, of levels the mean.
    """
    found: dict[tuple[SeriesKey, int], list[Point]] = {}
    for point in points:
        found.setdefault((point.key, point.time_ns), []).append(point)
    for together in found.values():
        first = together[0]
        values = [point.value for point in together]
        if len(values) == 1 or first.mode in {"codes", "events"}:
            yield together[-1]
        elif first.mode == "level" and SIGNALS[first.key.signal].form == "level":
            yield first._replace(value=sum(values) / len(values))
        elif first.mode == "level" and first.key.device:
            yield first._replace(value=max(values))
        else:
            yield first._replace(value=sum(values))


def _device(said: Mapping[str, str], source: _Source) -> tuple[str, str]:
    own = said.get("hw.parent") if said.get("hw.type") == "temperature" else None
    if said.get("hw.type", "gpu") not in {"gpu", "temperature"}:
        return "", ""  # a network adapter or a memory module concerns the host
    device = device_key(own or _first(said, _DEVICE)) or source.device
    return device, pci_key(_first(said, _PCI)) or source.pci


def _virtual(device: str) -> bool:
    return device == "lo" or device.startswith(_VIRTUAL)


def _source(resource: Mapping[str, str]) -> _Source:
    rank = resource.get(semconv.RANK, "")
    return _Source(
        said=resource,
        instance=resource.get(semconv.INSTANCE_ID, ""),
        rank=int(rank) if rank.isascii() and rank.isdigit() and len(rank) < 10 else UNKNOWN,
        host=_first(resource, _HOST),
        device=device_key(_first(resource, _DEVICE)),
        pci=pci_key(_first(resource, _PCI)),
    )


def _first(said: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((said[name] for name in names if said.get(name)), "")


def _texts(attributes: Iterable[Any]) -> dict[str, str]:
    """Scalar attributes as text; longer than a name can be is no name."""
    said: dict[str, str] = {}
    for attribute in attributes:
        value = attribute.value
        which = value.WhichOneof("value")
        if which == "string_value":
            if len(value.string_value) <= _TEXT:
                said[attribute.key] = value.string_value
        elif which == "int_value":
            said[attribute.key] = str(value.int_value)
    return said


def _line(body: Any) -> tuple[str, dict[str, str]]:
    """The message of a log record, and the journal's fields if it is an entry of it."""
    which = body.WhichOneof("value")
    if which == "string_value":
        return body.string_value, {}
    if which != "kvlist_value":
        return "", {}
    fields = {
        pair.key: pair.value.string_value
        for pair in body.kvlist_value.values
        if pair.value.WhichOneof("value") == "string_value"
    }
    return next((fields[name] for name in _MESSAGE if fields.get(name)), ""), fields
