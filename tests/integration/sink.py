"""A backend in the test's own process: takes OTLP over gRPC and remembers what it was sent."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from kat_otel import semconv

_BIG = ("grpc.max_receive_message_length", 64 * 2**20)


class Fact(NamedTuple):
    """A point of a metric or a line of a log: what a machine said of itself."""

    instance: str
    what: str
    """The metric's name, or the line."""
    device: str
    time_ns: int


class Sink(grpc.GenericRpcHandler):
    """A context manager; on a port of its own, which it keeps over :meth:`down` and :meth:`up`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._port = 0
        self._server: grpc.Server | None = None
        self.copies: Counter[int] = Counter()
        """How often each span id has come."""
        self.names: dict[int, str] = {}
        self.roots: dict[tuple[str, str], dict[str, Any]] = {}
        """Attributes of each step's root span, by instance and name of the span."""
        self.facts: set[Fact] = set()
        """What was passed on of machines' metrics and logs."""
        self.told: list[tuple[str, dict[str, Any]]] = []
        """Instance and incident of every log event, in the order of arrival."""

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self._port}"

    def up(self) -> None:
        """Listens, on the port of the first time."""
        server = grpc.server(ThreadPoolExecutor(4), handlers=[self], options=[_BIG])
        self._port = server.add_insecure_port(self.endpoint)
        server.start()
        self._server = server

    def down(self) -> None:
        """Goes away: connections are refused."""
        assert self._server is not None
        self._server.stop(0).wait()
        self._server = None

    def missing(self, sent: set[int]) -> set[int]:
        """Returns the span ids of ``sent`` that have not come."""
        with self._lock:
            return sent - self.copies.keys()

    def instances(self) -> set[str]:
        """Returns the instances of which a judged step has come."""
        with self._lock:
            return {instance for instance, _ in self.roots}

    def reports(self, instance: str) -> list[dict[str, Any]]:
        """Returns what was told of an instance's fault (see :meth:`faults`), in order."""
        with self._lock:
            told = list(self.told)
        return [one for name, one in told if name == instance and one["kind"] == "late_launch"]

    def incidents(self, instance: str | None = None) -> dict[str, dict[str, Any]]:
        """Returns each incident as last reported, by its id."""
        with self._lock:
            told = list(self.told)
        return {one["id"]: one for name, one in told if instance in {None, name}}

    def faults(self, instance: str) -> list[dict[str, Any]]:
        """Returns the incidents of hosts that fall behind: what ``traffic`` injects.

        A simulated GPU has its bad moments, too: those are not what the tests are about.
        """
        return [one for one in self.incidents(instance).values() if one["kind"] == "late_launch"]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        signals = {"Trace": self._traces, "Logs": self._logs, "Metrics": self._metrics}
        take = signals[method.rpartition(".")[2].partition("Service")[0]]

        def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
            take(data)
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)

    def _traces(self, data: bytes) -> None:
        spans = [
            (_said(resource.resource.attributes).get(semconv.INSTANCE_ID, ""), span)
            for resource in ExportTraceServiceRequest.FromString(data).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        names = {int.from_bytes(span.span_id, "big"): span.name for _, span in spans}
        roots = {
            (instance, span.name): _said(span.attributes)
            for instance, span in spans
            if not span.parent_span_id
        }
        with self._lock:
            self.copies.update(int.from_bytes(span.span_id, "big") for _, span in spans)
            self.names.update(names)
            self.roots.update(roots)

    def _logs(self, data: bytes) -> None:
        told = [
            (_said(resource.resource.attributes)[semconv.INSTANCE_ID], _said(record.attributes))
            for resource in ExportLogsServiceRequest.FromString(data).resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
            if record.event_name == semconv.EVENT_INCIDENT
        ]
        with self._lock:
            self.told += [(name, json.loads(said[semconv.REPORT])) for name, said in told]
            self.facts |= lines_of(data)

    def _metrics(self, data: bytes) -> None:
        with self._lock:
            self.facts |= points_of(data)

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self.down()


def missing_everywhere(sinks: Sequence[Sink], sent: set[int]) -> set[int]:
    """Returns the span ids of ``sent`` that have come to none of the sinks."""
    return set.intersection(*(sink.missing(sent) for sink in sinks))


def shown(incidents: Iterable[dict[str, Any]]) -> str:
    """Incidents in a line each, for a failed test's message."""
    keys = ("id", "status", "first_seen", "last_seen", "occurrences", "culprit", "victims", "steps")
    return "\n".join(str({key: one.get(key) for key in keys}) for one in incidents)


def points_of(data: bytes) -> set[Fact]:
    """Returns the points of a metrics request, those left out that KAT makes itself."""
    return {
        Fact(
            _said(resource.resource.attributes).get(semconv.INSTANCE_ID, ""),
            metric.name,
            _said(point.attributes).get("UUID", ""),
            point.time_unix_nano,
        )
        for resource in ExportMetricsServiceRequest.FromString(data).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if not metric.name.startswith("kat.")
        for point in [*metric.gauge.data_points, *metric.sum.data_points]
    }


def lines_of(data: bytes) -> set[Fact]:
    """Returns the lines of a logs request, incidents left out."""
    return {
        Fact(
            _said(resource.resource.attributes).get(semconv.INSTANCE_ID, ""),
            record.body.string_value,
            "",
            record.time_unix_nano,
        )
        for resource in ExportLogsServiceRequest.FromString(data).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        if record.event_name != semconv.EVENT_INCIDENT
    }


def _said(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
