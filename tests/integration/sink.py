"""A backend in the test's own process: takes OTLP over gRPC and remembers every span id."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from kat_otel import semconv

_BIG = ("grpc.max_receive_message_length", 64 * 2**20)


class Sink(grpc.GenericRpcHandler):
    """A context manager; on a port of its own, which it keeps over :meth:`down` and :meth:`up`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._port = 0
        self._server: grpc.Server | None = None
        self.copies: Counter[int] = Counter()
        """How often each span id has come."""
        self.names: dict[int, str] = {}
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
        take = {"Trace": self._traces, "Logs": self._logs}.get(
            method.rpartition(".")[2].partition("Service")[0]
        )

        def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
            if take is not None:
                take(data)
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)

    def _traces(self, data: bytes) -> None:
        spans = [
            (int.from_bytes(span.span_id, "big"), span.name)
            for resource in ExportTraceServiceRequest.FromString(data).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self.copies.update(span_id for span_id, _ in spans)
            self.names.update(spans)

    def _logs(self, data: bytes) -> None:
        told = [
            (_texts(resource.resource.attributes)[semconv.INSTANCE_ID], _texts(record.attributes))
            for resource in ExportLogsServiceRequest.FromString(data).resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
            if record.event_name == semconv.EVENT_INCIDENT
        ]
        with self._lock:
            self.told += [(name, json.loads(found[semconv.REPORT])) for name, found in told]

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self.down()


def shown(incidents: Iterable[dict[str, Any]]) -> str:
    """Incidents in a line each, for a failed test's message."""
    keys = ("id", "status", "first_seen", "last_seen", "occurrences", "culprit", "victims", "steps")
    return "\n".join(str({key: one.get(key) for key in keys}) for one in incidents)


def _texts(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in attributes}
